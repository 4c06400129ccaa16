"""What a repository holds and whether it would load, without loading it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from triune.backends.registry import Backends
from triune.config.configure import read_source
from triune.config.honour import hints_without_effect
from triune.config.layout import check_name
from triune.config.model_config import ModelConfig
from triune.config.placement import Machine
from triune.config.stamps import Stamp
from triune.core.errors import TriuneError, no_memory
from triune.core.units import Unit
from triune.repository.finding import TWICE, Found, find_models


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """What is known of a model before it is loaded.

    Attributes:
        name: its folder's name.
        versions: those that would be served, ascending; empty if that cannot be told.
        backend: its backend, empty if that cannot be told.
        units: where it would run.
        problems: why it would not load; empty if it would.
        hints: fields of its config that have no effect here.
        config: the completed configuration of the newest version that has no problem.
    """

    name: str
    versions: tuple[int, ...]
    backend: str
    units: tuple[Unit, ...]
    problems: tuple[str, ...]
    hints: tuple[str, ...]
    config: ModelConfig | None


def check(repositories: Sequence[Path], backends: Backends, machine: Machine) -> Sequence[ModelCheck]:
    """Check every model of the repositories, by name. Reads configs and signatures; compiles nothing.

    Raises:
        InvalidArgumentError: a repository cannot be read.
    """
    return [_check_model(name, found, backends, machine) for name, found in sorted(find_models(repositories).items())]


def _check_model(name: str, found: Found, backends: Backends, machine: Machine) -> ModelCheck:
    if found.problem:
        places = f": {', '.join(str(each.parent) for each in found.folders)}" if found.problem == TWICE else ""
        return ModelCheck(name, (), "", (), (f"{found.problem}{places}",), (), None)
    try:
        return _check_folder(name, found.folders[0], backends, machine)
    except TriuneError as error:
        problem = str(error)
    except MemoryError:
        problem = str(no_memory("its check", "check it alone"))
    except Exception as error:  # noqa: BLE001 - one model is one model: the others are checked
        problem = f"unexpected {type(error).__name__} while it was checked: {error}"
    return ModelCheck(name, (), "", (), (problem,), (), None)


def _check_folder(name: str, folder: Path, backends: Backends, machine: Machine) -> ModelCheck:
    check_name(name)
    source = read_source(name, folder, Stamp(), completion=machine.completion, honours=backends.honours)
    config: ModelConfig | None = None
    problems: list[str] = []
    for version in source.versions:
        try:
            config = backends.configure(source, version)
        except TriuneError as error:
            problems.append(f"version {version}: {error}")
    return ModelCheck(
        name=name,
        versions=source.versions,
        backend=config.backend if config else source.message.backend,
        units=config.units if config else (),
        problems=tuple(problems),
        hints=tuple(hints_without_effect(config.message if config else source.message, machine)),
        config=config,
    )
