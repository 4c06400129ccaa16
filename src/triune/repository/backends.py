"""Which backends there are, by the names that configs give in `backend`."""

from pathlib import Path

from triune.backends.encoder.backend import EncoderBackend
from triune.backends.ensemble import EnsembleBackend
from triune.backends.machine_backend import TryFirst
from triune.backends.registry import ENSEMBLE, Backends
from triune.backends.speech.backend import SpeechBackend
from triune.backends.tensor.backend import TensorBackend
from triune.backends.transformer.backend import TransformerBackend
from triune.config.encoder import ENCODER
from triune.config.settings import ModelSettings
from triune.config.speech import SPEECH
from triune.config.transformer import TRANSFORMER
from triune.core.clock import Clock
from triune.core.power import Power
from triune.hardware.energy.ledger import EnergyLedger
from triune.runtimes.machine import Machine
from triune.scheduling.response_cache import ResponseCache


def make_backends(
    machine: Machine,
    clock: Clock,
    settings: ModelSettings,
    try_first: TryFirst | None,
    energy: EnergyLedger | None = None,
    power: Power | None = None,
    verdicts: Path | None = None,
) -> Backends:
    """Make all backends, and the response cache if the settings give it a size.

    Args:
        machine: the machine to load models on.
        clock: the clock.
        settings: defaults for all models.
        try_first: is called before a version is compiled; None compiles directly.
        energy: charges models with their energy; None does not meter it.
        power: the server's power mode; None for full power.
        verdicts: the folder in which verdicts on units are kept; None keeps none.
    """
    cache = ResponseCache(settings.cache_bytes) if settings.cache_bytes is not None else None
    others = {
        ENSEMBLE: EnsembleBackend(clock, settings),
        ENCODER: EncoderBackend(
            machine, clock, settings, try_first=try_first, energy=energy, power=power, verdicts=verdicts
        ),
        SPEECH: SpeechBackend(machine, clock, settings, try_first=try_first, energy=energy, power=power),
        TRANSFORMER: TransformerBackend(machine, clock, settings, try_first=try_first, energy=energy, power=power),
    }
    tensor = TensorBackend(machine, clock, settings, try_first=try_first, energy=energy, power=power, verdicts=verdicts)
    return Backends(tensor, clock, others=others, cache=cache)
