"""Base class of backends that build for the machine's runtimes and need no other models."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from triune.arbiter.arbiter import Arbiter
from triune.backends.attempt import Attempt
from triune.backends.backend import Build
from triune.backends.gate.gate import Gate
from triune.backends.gate.kept import KeptVerdicts
from triune.backends.resources import Resources
from triune.backends.served_times import ServedTimes
from triune.config.configure import Source
from triune.config.load_key import LoadKeys
from triune.config.settings import DEFAULT_SETTINGS, ModelSettings
from triune.core.clock import Clock
from triune.core.energy import Account
from triune.core.power import Power
from triune.core.units import Unit
from triune.hardware.energy.ledger import EnergyLedger
from triune.runtimes.machine import Machine

TryFirst: TypeAlias = Callable[[Source, int, Attempt], None]
"""A function that is called with (source, version, attempt) before the version is built. If it raises an error, the
version is not built.
"""


@dataclass(frozen=True, slots=True)
class Shared:
    """The objects that all models of a server share.

    Attributes:
        energy: charges models for their energy; None if it is not metered.
        power: the server's power mode; None for full power.
        arbiter: decides which models compute at once on hardware that they share; None lets all compute at once.
        verdicts: the folder of stored verdicts on how far units' outputs are from those of `cpu`; None stores none.
        costs: the folder of the stored times of batches; None stores none.
        times: stores the times of models for plans; None stores none.
    """

    energy: EnergyLedger | None = None
    power: Power | None = None
    arbiter: Arbiter | None = None
    verdicts: Path | None = None
    costs: Path | None = None
    times: ServedTimes | None = None


ALONE: Final = Shared()


class MachineBackend:
    """The common part of all backends that build for this machine's runtimes."""

    def __init__(
        self,
        machine: Machine,
        clock: Clock,
        settings: ModelSettings = DEFAULT_SETTINGS,
        *,
        try_first: TryFirst | None = None,
        is_trial: bool = False,
        shared: Shared = ALONE,
    ) -> None:
        """Args:
        machine: the runtimes and units to build for.
        clock: the clock of all measurements.
        settings: defaults for all models.
        try_first: the function to call before a version is compiled, see `TryFirst`; None compiles directly.
        is_trial: whether builds are closed without serving: their caches are then the smallest ones.
        shared: the objects that all models of a server share. By default there are none, as for a single model.
        """
        self._machine = machine
        self._keys = LoadKeys(machine, settings.completion)
        self._gate = Gate(machine, KeptVerdicts(shared.verdicts) if shared.verdicts is not None else None)
        self._clock = clock
        self._settings = settings
        self._try_first = try_first
        self._is_trial = is_trial
        self._costs = shared.costs
        self._times = shared.times
        self._energy = shared.energy
        self._power = shared.power
        self._arbiter = shared.arbiter

    def needs(self, source: Source) -> Mapping[str, frozenset[int | None]]:
        """Implements `Backend.needs`: the models of this backend need no other models."""
        del source
        return {}

    def _resources(self, build: Build, units: Iterable[Unit]) -> Resources:
        """The settings, clock, accounts, power mode and arbiter for a servable of this build, which runs on `units`."""
        return Resources(self._settings, self._clock, self._accounts(build, units), self._power, self._arbiter)

    def _accounts(self, build: Build, units: Iterable[Unit]) -> Mapping[Unit, Account]:
        """The energy accounts of a version on the units that it runs on; empty if energy is not metered."""
        if self._energy is None:
            return {}
        name, emulated = build.config.name, build.emulated
        return {
            unit: self._energy.account(name, build.version, unit, is_emulated=unit in emulated)
            for unit in dict.fromkeys(units)
        }
