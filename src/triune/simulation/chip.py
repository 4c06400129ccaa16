"""The hardware of a simulated chip: batches that run at once slow each other down, by a stated model.

Batches on one pool of hardware share its time equally. A batch that passes through several pools, one after the other,
uses each for a part of its time. The memory's bandwidth is shared max-min fairly (Bertsekas and Gallager, "Data
Networks", 1992, chapter 6): a batch that needs less than an equal share gets all that it needs, and the others share
the remainder. A batch needs bytes / time throughout its run. Nothing else is modelled: no heat, no power limits, no
shared caches, and no CPU time for launches.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from triune.core.clock import Timer, VirtualClock
from triune.core.units import Unit
from triune.simulation.profile import BatchCost

_DONE_NS: Final = 1.0


@dataclass(eq=False, slots=True)
class _Running:
    """A running batch.

    Attributes:
        unit: the unit on which it was started.
        cost: its predicted cost if nothing else runs.
        done: is called with its joules when it ends.
        left_ns: the time that it would still need if nothing else ran.
        watts: the mean power that it draws if nothing else runs.
        joules: the energy that it has drawn so far; at the beginning, the part of its energy that `watts` leaves out.
        rate: by how many nanoseconds `left_ns` decreases in a nanosecond; 1 if nothing else runs.
        crowd: by how many times its pool slows it down, since other batches use the pool, too.
    """

    unit: Unit
    cost: BatchCost
    done: Callable[[float], None]
    left_ns: float
    watts: float
    joules: float
    rate: float = 1.0
    crowd: float = 1.0


class SimulatedChip:
    """Runs batches on a virtual clock.

    Attributes:
        busy_ns: how long each unit had a batch, in nanoseconds.
    """

    def __init__(
        self,
        clock: VirtualClock,
        pool_of: Callable[[Unit], Unit],
        watts: Mapping[Unit, float],
        memory_gb_per_s: float | None,
    ) -> None:
        """Make a chip on which nothing runs yet.

        Args:
            clock: the clock.
            pool_of: the pool of a unit; units of one pool share hardware.
            watts: the power of each unit while it computes, which does not depend on the operations.
            memory_gb_per_s: the bandwidth of the memory; None for no limit.
        """
        self.busy_ns = dict.fromkeys(watts, 0.0)
        self._clock = clock
        self._pool_of = pool_of
        self._watts = watts
        self._bandwidth = memory_gb_per_s or math.inf
        self._running: list[_Running] = []
        self._passed_ns = 0
        self._timer: Timer | None = None

    def begin(self, unit: Unit, cost: BatchCost, done: Callable[[float], None]) -> None:
        """Run a batch; `done` is called with its joules when it ends."""
        self._pass_time()
        watts = sum(ns * self._watts[each] for each, ns in cost.unit_ns.items()) / cost.ns
        beyond = cost.joules - 1e-9 * watts * cost.ns
        self._running.append(_Running(unit, cost, done, cost.ns, watts, max(0.0, beyond)))
        self._change_rates()

    def _pass_time(self) -> None:
        now_ns = self._clock.now_ns()
        elapsed_ns, self._passed_ns = now_ns - self._passed_ns, now_ns
        for each in self._running:
            each.left_ns -= elapsed_ns * each.rate
            # Batches of one pool share its power. A batch that waits for memory draws as much power as one that
            # computes.
            each.joules += 1e-9 * elapsed_ns * each.watts / each.crowd
        for unit in dict.fromkeys(each.unit for each in self._running):
            self.busy_ns[unit] += elapsed_ns

    def _change_rates(self) -> None:
        loads = dict.fromkeys(map(self._pool_of, self._watts), 0.0)
        for each in self._running:
            for unit, ns in each.cost.unit_ns.items():
                loads[self._pool_of(unit)] += ns / each.cost.ns
        for each in self._running:
            each.crowd = max(1.0, *(loads[self._pool_of(unit)] for unit in each.cost.unit_ns))
        # A batch that runs alone takes its predicted time, however much bandwidth it needs.
        asked = {each: self._asked(each) for each in self._running}
        left, num_left = self._bandwidth, len(asked)
        for each in sorted(asked, key=lambda each: asked[each]):
            given = min(asked[each], left / num_left)
            left, num_left = left - given, num_left - 1
            each.rate = (given / asked[each] if asked[each] else 1.0) / each.crowd
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._running:
            first_ns = min(each.left_ns / each.rate for each in self._running)
            self._timer = self._clock.call_at(self._clock.now_ns() + max(1, math.ceil(first_ns)), self._end)

    def _asked(self, each: _Running) -> float:
        return min(self._bandwidth, each.cost.memory_bytes / each.cost.ns) / each.crowd

    def _end(self) -> None:
        self._timer = None
        self._pass_time()
        ended = [each for each in self._running if each.left_ns < _DONE_NS]
        self._running = [each for each in self._running if each.left_ns >= _DONE_NS]
        self._change_rates()
        for each in ended:
            each.done(each.joules)
