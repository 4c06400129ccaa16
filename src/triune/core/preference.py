"""Decides which of a model's units may be used in the present power mode."""

from collections.abc import Set

from triune.core.power import EFFECTS, FRUGAL_ORDER, Power, PowerMode
from triune.core.statistics import ModelStatistics
from triune.core.units import Unit


class UnitPreference:
    """Leaves out units by the server's power mode, or by that of one request."""

    def __init__(self, power: Power, statistics: ModelStatistics) -> None:
        """Args:
        power: the server's mode.
        statistics: the model's counters, with its joules.
        """
        self._power = power
        self._statistics = statistics

    @property
    def is_restricting(self) -> bool:
        """Whether the server's mode leaves out any unit of a model that has several."""
        return bool(self._power.hot) or EFFECTS[self._power.mode].is_one_unit

    def min_delay_us(self, mode: PowerMode | None) -> int:
        """How long a request waits at least for others to share a batch with; `mode` is the request's own."""
        return EFFECTS[mode or self._power.mode].min_delay_us

    def units(self, among: Set[Unit], mode: PowerMode | None) -> Set[Unit]:
        """The units that a request may use.

        Args:
            among: the units that it could use, at least one.
            mode: the request's own mode; None for the server's.
        """
        effects = EFFECTS[mode or self._power.mode]
        cool = among if mode is not None and not effects.is_overruled else among - self._power.hot.keys()
        left = cool or among
        return {self._most_frugal(left)} if effects.is_one_unit else left

    def _most_frugal(self, units: Set[Unit]) -> Unit:
        """The unit with the fewest joules a row, where those of all are known; else the first of FRUGAL_ORDER."""
        known = {unit: joules_per_row(self._statistics, unit) for unit in units}
        if all(known.values()):
            return min(units, key=lambda unit: known[unit])
        return min(units, key=FRUGAL_ORDER.index)


def joules_per_row(statistics: ModelStatistics, unit: Unit) -> float:
    """The joules of a row of a model on a unit, as far as they were counted; 0 if they are not known."""
    account, rows = statistics.accounts.get(unit), statistics.unit_inferences.get(unit, 0)
    return sum(account.totals().values()) / rows if account is not None and rows else 0.0
