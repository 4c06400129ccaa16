"""Clients request a LoRA adapter as if it were a model: the adapter `poet` of the model `tiny` is `tiny:poet`, which
may be the name of a model folder, too. What is loaded first keeps the name.
"""

from collections.abc import Collection, Iterable, Mapping

from triune.core.errors import InvalidArgumentError
from triune.core.servable import Servable
from triune.engine.servable import TextServable
from triune.repository.memory.parked import ParkedServable
from triune.scheduling.models import LoadedVersion


def adapters_of(servable: Servable) -> Collection[str]:
    """The names of a version's LoRA adapters, also while it is unloaded to make room."""
    if isinstance(servable, ParkedServable):
        return servable.adapters
    return tuple(servable.model.adapters) if isinstance(servable, TextServable) else ()


def require_free(model: str, adapters: Iterable[str], ready: Mapping[str, Mapping[int | None, LoadedVersion]]) -> None:
    """Check that no other model, nor an adapter of one, has the name of a model or of one of its adapters.

    Args:
        model: the model.
        adapters: its adapters.
        ready: the versions that take requests, by model and number; the key None is the newest version.

    Raises:
        InvalidArgumentError: another one has such a name. The message names both.
    """
    wanted = _named(model, adapters)
    for other, versions in ready.items():
        taken = _named(other, adapters_of(versions[None].servable)) if other != model else {}
        for name in wanted.keys() & taken.keys():
            raise InvalidArgumentError(
                f"requests for '{name}' are answered by {taken[name]}, and would be requests for {wanted[name]}, too: "
                "rename one of them, or unload the model that has the name"
            )


def with_bases_first(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Divide the names of models into those to load first, and those that may be the name of a first one's adapter."""
    unique = list(dict.fromkeys(names))
    known = set(unique)
    first, then = list[str](), list[str]()
    for name in unique:
        (then if name.rpartition(":")[0] in known else first).append(name)
    return first, then


def _named(model: str, adapters: Iterable[str]) -> dict[str, str]:
    """What each name that belongs to a model means."""
    of_adapters = {f"{model}:{each}": f"the LoRA adapter '{each}' of the model '{model}'" for each in adapters}
    return {model: f"the model '{model}'", **of_adapters}
