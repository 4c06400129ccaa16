"""Charges the energy between two readings of a meter to the works (`Work`) that ran in that time."""

import math
import threading
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from triune.core.energy import Account, EnergyKind, Phase, Work
from triune.core.errors import InternalError
from triune.core.units import Unit
from triune.hardware.energy.meter import EnergyMeter, Rail, RailRole, Reading
from triune.hardware.energy.split import Division, divide

_MAX_WORKS: Final = 1 << 17
"""The most works that are kept between two readings. If a meter hangs, these take some megabytes; older works are
forgotten, and their energy counts as idle.
"""

_MOST_IDLE: Final = 0.2
"""The joules of a single work are told only if nothing computed for at most this fraction of the time between the
readings: a meter counts that time, too, and a unit that is idle draws much less.
"""

_TOLERANCE: Final = 1e-9
"""The largest rounding error of a sum of joules, relative to the sum, that `check` allows."""


@dataclass(slots=True)
class RailTotals:
    """The joules that a rail has counted so far: `metered == charged + idle`.

    Attributes:
        metered: the joules that the meter counted while it was available.
        charged: the joules of times in which models computed. They are added to the models' accounts only if all rails
            of the unit are available.
        idle: the joules of times in which none of the rail's units computed for a model: idle power, other programs,
            and the server's own work.
        watts: the mean power between the last two readings; None while the rail is unavailable.
    """

    metered: float = 0.0
    charged: float = 0.0
    idle: float = 0.0
    watts: float | None = None


@dataclass(frozen=True, slots=True)
class RailStatus:
    """A rail as of the last reading.

    Attributes:
        rail: the rail.
        totals: the joules that it has counted.
        reason: why the rail is unavailable; empty if it is available.
    """

    rail: Rail
    totals: RailTotals
    reason: str


class Settles(Protocol):
    """Makes the ledger read its meter now, for callers that wait until the energy of their work is charged."""

    async def settle(self) -> bool:
        """Implements `Accountant.settle`."""
        ...


class EnergyLedger:
    """Reads a meter, and charges the joules to the works that ran.

    Any thread may call `record`. Only one thread at a time may call `sample`. If another method is called while
    `sample` runs, its numbers may be one interval old.
    """

    def __init__(self, meter: EnergyMeter, settles: Settles | None = None) -> None:
        """Args:
        meter: the meter to read. The caller closes it.
        settles: lets another thread call `sample`. With None, the caller calls `sample`, or `settle` does.
        """
        self._meter = meter
        self._settles = settles
        self._recorded: deque[Work] = deque(maxlen=_MAX_WORKS)
        self._works: list[Work] = []
        # The measured joules of each work that has not ended, NaN if a part of them cannot be told.
        self._joules: dict[Work, float] = {}
        self._quick_ns: weakref.WeakKeyDictionary[Account, int] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()
        self._totals = {rail.name: RailTotals() for rail in meter.rails}
        self._last = meter.read()

    @property
    def rails(self) -> Sequence[RailStatus]:
        """All rails as of the last reading."""
        reasons = self._last.unavailable
        return [RailStatus(rail, self._totals[rail.name], reasons.get(rail.name, "")) for rail in self._meter.rails]

    def record(self, work: Work) -> None:
        """Register a work that begins. Any thread may call this."""
        self._recorded.append(work)

    async def settle(self) -> bool:
        """Implements `Accountant.settle`."""
        if self._settles is not None:
            return await self._settles.settle()
        self.sample()
        return True

    def account(self, model: str, version: int, unit: Unit, *, is_emulated: bool = False) -> Account:
        """Make a new account. Any thread may call this.

        Args:
            model: the model's name.
            version: its version.
            unit: the unit that computes it.
            is_emulated: whether the unit is emulated, so that the CPU computes it.
        """
        account = Account(model, version, Unit.CPU if is_emulated else unit, self)
        with self._lock:
            self._quick_ns[account] = 0
        return account

    def why_unavailable(self, unit: Unit) -> str:
        """Implements `Accountant.why_unavailable`, as of the last reading."""
        return self._usable(self._last, self._last)[1].get(unit, "")

    def sample(self) -> None:
        """Read the meter, and charge the energy since the last reading. Does nothing if no time has passed."""
        before, now = self._last, self._meter.read()
        if now.time_ns <= before.time_ns:
            return
        self._last = now
        while self._recorded:
            self._works.append(self._recorded.popleft())
        with self._lock:
            accounts = list(self._quick_ns.items())
        grown: dict[Account, int] = {}
        for account, counted_ns in accounts:
            if account.quick_ns != counted_ns:
                quick_ns = account.quick_ns
                grown[account] = quick_ns - counted_ns
                self._quick_ns[account] = quick_ns
        rails, missing = self._usable(before, now)
        self._charge(before, now, rails, missing, grown)
        for work in self._works:
            if (reason := missing.get(work.account.unit)) and work.started_ns < now.time_ns:
                self._joules[work] = math.nan
                for share in work.parts():
                    if share.bill is not None:
                        share.bill.missing = reason
        left: list[Work] = []
        for work in self._works:
            if not work.ended_ns or work.ended_ns > now.time_ns:
                left.append(work)
                continue
            joules = self._joules.pop(work, math.nan)
            work.joules = None if math.isnan(joules) else joules
        self._works = left

    def check(self) -> None:
        """Check the invariant of `RailTotals`. Raises an InternalError that names a rail for which it does not hold."""
        for name, totals in self._totals.items():
            difference = totals.metered - totals.charged - totals.idle
            if abs(difference) > _TOLERANCE * max(1.0, totals.metered):
                raise InternalError(
                    f"rail '{name}' counted {totals.metered} J, but {totals.charged} J are charged and {totals.idle} J "
                    "are idle"
                )

    def _usable(self, before: Reading, now: Reading) -> tuple[Sequence[Rail], Mapping[Unit, str]]:
        """The rails to charge for the time between two readings, and the reason for each unit whose joules are missing.

        If a unit has no measured rail, its estimated rails are used.
        """
        both = before.joules.keys() & now.joules.keys()
        measured: dict[Unit, str] = {}
        for rail in self._meter.rails:
            if rail.role is RailRole.COMPUTE and rail.kind is EnergyKind.MEASURED:
                reason = now.unavailable.get(rail.name) or before.unavailable.get(rail.name, "")
                for unit in rail.units:
                    measured[unit] = measured.get(unit) or reason
        usable: list[Rail] = []
        missing = {unit: reason for unit, reason in measured.items() if reason}
        for rail in self._meter.rails:
            if rail.name not in both:
                continue
            if rail.kind is EnergyKind.MEASURED:
                usable.append(rail)
            elif all(measured.get(unit, "none") for unit in rail.units):
                usable.append(rail)
                for unit in rail.units:
                    missing.pop(unit, None)
        return usable, missing

    def _charge(
        self,
        before: Reading,
        now: Reading,
        rails: Sequence[Rail],
        missing: Mapping[Unit, str],
        quick_ns: Mapping[Account, int],
    ) -> None:
        seconds = (now.time_ns - before.time_ns) / 1e9
        divisions: dict[frozenset[Unit], Division] = {}
        for name, totals in self._totals.items():
            if name not in now.joules:
                totals.watts = None
        for rail in rails:
            totals, counted = self._totals[rail.name], now.joules[rail.name] - before.joules[rail.name]
            division = divisions.get(rail.units)
            if division is None:
                works = [work for work in self._works if work.account.unit in rail.units]
                quick = {account: spent for account, spent in quick_ns.items() if account.unit in rail.units}
                division = divisions[rail.units] = divide(before.time_ns, now.time_ns, works, quick)
            idle = counted * division.idle
            joules = counted
            if rail.is_load_only:
                joules, idle = counted - idle, 0.0
            totals.metered += joules
            totals.idle += idle
            totals.charged += joules - idle
            totals.watts = joules / seconds
            if rail.role is not RailRole.DETAIL and joules:
                self._give(rail, division, counted, missing)

    def _give(self, rail: Rail, division: Division, joules: float, missing: Mapping[Unit, str]) -> None:
        """Add the joules of a rail in an interval to accounts (of models), bills (of requests) and works, to each its
        part in `division`.

        Units in `missing` are not charged: the joules of a rail of role MEMORY alone would look like all of their
        energy.
        """
        is_told = rail.kind is EnergyKind.MEASURED and division.idle <= _MOST_IDLE
        for work, part in division.works:
            if work.account.unit in missing:
                continue
            self._joules[work] = self._joules.get(work, 0.0) + (joules * part if is_told else math.nan)
            for phase, weight, bill in work.parts():
                charged = joules * part * weight
                work.account.add(phase, rail.kind, charged)
                if bill is not None:
                    bill.add(phase, rail.kind, charged)
        for account, part in division.quick:
            if account.unit not in missing:
                account.add(Phase.INFER, rail.kind, joules * part)
