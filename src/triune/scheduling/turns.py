"""The turns of one model on hardware that other models use, too."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence

from triune.arbiter.arbiter import Arbiter
from triune.arbiter.balance import Demand
from triune.arbiter.share import Share
from triune.core.units import Unit


class Turns:
    """A model's shares of the hardware pools that its units belong to. If no other model competes for them, it has no
    shares and never waits.
    """

    def __init__(
        self,
        name: str,
        units: Sequence[Unit],
        arbiter: Arbiter | None,
        weight: float,
        pump: Callable[[], None],
        costs: Callable[[], Mapping[Unit, float]],
        objective_ns: int = 0,
    ) -> None:
        """Args:
        name: the model's name.
        units: the units that it is served on.
        arbiter: gives turns; None if no other model competes. With an arbiter, this object must be made on the event
            loop's thread.
        weight: the model's share of the hardware, relative to the weights of other models.
        pump: the function that is called on the event loop's thread when the model gets its turn.
        costs: returns the known times of a request on each unit under load.
        objective_ns: the model's latency objective, for which others cut their batches; 0 for none.
        """
        self._by_unit: Mapping[Unit, Share] = {}
        self._loop = asyncio.get_running_loop() if arbiter is not None else None
        self._thread = threading.get_ident()
        self._pump = pump
        self._balance = arbiter.balance if arbiter is not None else None
        self._demand = Demand(costs)
        if arbiter is not None:
            self._by_unit = arbiter.join(name, units, self._on_turn, weight, self._demand, objective_ns)
        self._shares = list(dict.fromkeys(self._by_unit.values()))
        self._is_bound = False
        self._has_objective = objective_ns > 0

    def share_of(self, unit: Unit) -> Share | None:
        """The model's share of the pool that a unit belongs to; None if no other model competes."""
        return self._by_unit.get(unit)

    def arrived(self, now_ns: int) -> None:
        """Count a request that arrived, and divide the pools anew if that is due."""
        if self._has_objective:
            for share in self._shares:
                share.arrived_ns = now_ns
        if self._balance is not None:
            self._demand.num_requests += 1
            if now_ns >= self._balance.due_ns:
                self._balance.update(now_ns)

    def bind(self, named: Mapping[Unit, int]) -> None:
        """Tell the shares how many waiting requests name each unit: these requests can be computed nowhere else."""
        if not named and not self._is_bound:
            return
        self._is_bound = bool(named)
        bound = dict.fromkeys(self._shares, 0)
        for unit, number in named.items():
            if unit in self._by_unit:
                bound[self._by_unit[unit]] += number
        for share, number in bound.items():
            share.bind(number)

    def return_unused(self, now_ns: int, *, has_waiting: bool) -> int:
        """Give back turns in which no batch was started, and stop waiting for turns that no batch needs.

        Args:
            now_ns: the time.
            has_waiting: whether requests that name no unit wait in the model's queue. (Those that name one are counted
                by `bind`.)

        Returns:
            the earliest time at which the model may compute without a turn; 0 if it does not wait for a turn.
        """
        if self._demand.has_waiting is not has_waiting:
            self._demand.tell(has_waiting=has_waiting)
        first_ns = 0
        for share in self._shares:
            if share.is_asking:
                ends_ns = share.return_unused(now_ns, has_waiting=has_waiting)
                if ends_ns and (ends_ns < first_ns or not first_ns):
                    first_ns = ends_ns
        return first_ns

    def close(self) -> None:
        """Leave the pools. No turn may be running."""
        if self._balance is not None:
            self._balance.leave(self._demand)
        for share in self._shares:
            share.close()

    def _on_turn(self) -> None:
        """Let the model go on, since its turn has come. Any thread may call this."""
        assert self._loop is not None
        # `call_soon` is enough on the event loop's own thread: waking the loop, as `call_soon_threadsafe` does, takes
        # system calls.
        is_here = threading.get_ident() == self._thread
        # RuntimeError means that the event loop is closed, so that nobody waits for answers.
        with contextlib.suppress(RuntimeError):
            (self._loop.call_soon if is_here else self._loop.call_soon_threadsafe)(self._pump)
