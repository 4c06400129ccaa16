"""Decides which of a model's units may be used in the present power mode."""

from collections.abc import Set

from triune.core.power import EFFECTS, FRUGAL_ORDER, Power, PowerMode
from triune.core.statistics import ModelStatistics
from triune.core.units import Unit


class UnitPreference:
    """Restricts a model's units according to the server's power mode, or to the mode of one request."""

    def __init__(self, power: Power, statistics: ModelStatistics) -> None:
        """Args:
        power: the server's power mode.
        statistics: the model's counters, which include its joules.
        """
        self._power = power
        self._statistics = statistics

    @property
    def is_restricting(self) -> bool:
        """Whether the server's power mode, or heat, may leave out a unit of a model that has several."""
        return bool(self._power.hot) or EFFECTS[self._power.mode].is_one_unit

    def min_delay_us(self, mode: PowerMode | None) -> int:
        """The least time, in microseconds, that a request waits for others to share a batch with. `mode` is the
        request's own power mode.
        """
        return EFFECTS[mode or self._power.mode].min_delay_us

    def units(self, among: Set[Unit], mode: PowerMode | None) -> Set[Unit]:
        """Choose the units that a request may use.

        Args:
            among: the units that the request could use, at least one.
            mode: the request's own power mode; None means the server's mode.
        """
        effects = EFFECTS[mode or self._power.mode]
        cool = among if mode is not None and not effects.is_overruled else among - self._power.hot.keys()
        left = cool or among
        return {self._most_frugal(left)} if effects.is_one_unit else left

    def _most_frugal(self, units: Set[Unit]) -> Unit:
        """The unit with the fewest joules per row, if they are known for all units; else the first unit in
        FRUGAL_ORDER.
        """
        known = {unit: joules_per_row(self._statistics, unit) for unit in units}
        if all(known.values()):
            return min(units, key=lambda unit: known[unit])
        return min(units, key=FRUGAL_ORDER.index)


def joules_per_row(statistics: ModelStatistics, unit: Unit) -> float:
    """The joules per row of a model on a unit, as counted so far; 0 if unknown."""
    account, rows = statistics.accounts.get(unit), statistics.unit_inferences.get(unit, 0)
    return sum(account.totals().values()) / rows if account is not None and rows else 0.0
