"""Makes all backends, by the names that configs use in the field `backend`."""

from collections.abc import Mapping
from typing import Final

from triune.backends.encoder.backend import EncoderBackend
from triune.backends.ensemble import EnsembleBackend
from triune.backends.machine_backend import Shared, TryFirst
from triune.backends.registry import ENSEMBLE, AnyBackend, Backends
from triune.backends.speech.backend import SpeechBackend
from triune.backends.tensor.backend import TensorBackend
from triune.backends.transformer.backend import TransformerBackend
from triune.config.encoder import ENCODER
from triune.config.settings import ModelSettings
from triune.config.speech import SPEECH
from triune.config.transformer import TRANSFORMER
from triune.core.clock import Clock
from triune.runtimes.machine import Machine
from triune.scheduling.response_cache import ResponseCache

CHECKPOINT_BACKENDS: Final[Mapping[str, type[EncoderBackend | SpeechBackend | TransformerBackend]]] = {
    ENCODER: EncoderBackend,
    SPEECH: SpeechBackend,
    TRANSFORMER: TransformerBackend,
}
"""The backends other than those of tensor models and of ensembles, by the name that a config gives in `backend`. All of
them build models of checkpoint files so far. The trial load of a version in a separate process, before its first load,
looks its backend up here too (`repository.trials`).
"""


def make_backends(
    machine: Machine,
    clock: Clock,
    settings: ModelSettings,
    try_first: TryFirst | None,
    shared: Shared,
) -> Backends:
    """Make all backends, and the response cache if the settings give it a size.

    Args:
        machine: the machine to load models on.
        clock: the clock.
        settings: defaults for all models.
        try_first: the function to call before a version is compiled; None compiles without it.
        shared: the objects that all models share.
    """
    cache = ResponseCache(settings.cache_bytes) if settings.cache_bytes is not None else None
    others: dict[str, AnyBackend] = {ENSEMBLE: EnsembleBackend(clock, settings)}
    for name, backend in CHECKPOINT_BACKENDS.items():
        others[name] = backend(machine, clock, settings, try_first=try_first, shared=shared)
    tensor = TensorBackend(machine, clock, settings, try_first=try_first, shared=shared)
    return Backends(tensor, clock, others=others, cache=cache)
