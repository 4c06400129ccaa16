"""The resources that a servable uses: settings, clock, energy accounts, power mode and arbiter."""

from collections.abc import Mapping
from dataclasses import dataclass

from triune.arbiter.arbiter import Arbiter
from triune.config.settings import ModelSettings
from triune.core.clock import Clock
from triune.core.energy import Account
from triune.core.power import Power
from triune.core.units import Unit


@dataclass(frozen=True, slots=True)
class Resources:
    """The parts of a server that `Backend.assemble` passes to a servable.

    Attributes:
        settings: defaults for all models.
        clock: the clock of all measurements.
        accounts: the accounts that are charged with the energy of each unit; empty if energy is not metered.
        power: the server's power mode; None for full power.
        arbiter: decides which models compute at once on hardware that they share; None lets all compute at once.
    """

    settings: ModelSettings
    clock: Clock
    accounts: Mapping[Unit, Account]
    power: Power | None = None
    arbiter: Arbiter | None = None
