"""How a model that computes in its own thread waits for its turns on hardware that models share: the thread blocks."""

import math
import threading
from collections.abc import Mapping

from triune.arbiter.arbiter import Arbiter
from triune.arbiter.balance import Demand
from triune.arbiter.cost import CostEstimate
from triune.arbiter.pool import PATIENCE_NS, Turn
from triune.core.clock import Clock
from triune.core.units import Unit


class BlockingShare:
    """Asks the arbiter for the turns of a model that computes in steps. The model's thread calls `begin`, which waits
    for a turn, before each step, and `end` after it. Only one thread at a time may use it.

    The arbiter sees a step as a request: how many steps there are, and how long they take, is the model's demand.
    """

    def __init__(self, arbiter: Arbiter, clock: Clock, name: str, unit: Unit, weight: float = 1.0) -> None:
        """Args:
        arbiter: gives the turns.
        clock: the clock that measures the steps.
        name: the model's name, for metrics.
        unit: the unit that computes its steps.
        weight: the model's weight; see `Arbiter.join`.
        """
        self._woken = threading.Event()
        self._demand = Demand(self._costs)
        self._share = arbiter.join(name, [unit], self._woken.set, weight, self._demand)[unit]
        self._balance = arbiter.balance
        self._clock = clock
        self._unit = unit
        self._turn: Turn | None = None
        self._last_ns = 0.0
        self._alone = CostEstimate(stale_after=math.inf)

    def begin(self) -> None:
        """Wait for the model's turn, for PATIENCE_NS at most."""
        self._demand.num_requests += 1
        while (turn := self._share.start(self._unit, self._last_ns)) is None:
            self._woken.wait(PATIENCE_NS / 1e9)
            self._woken.clear()
        self._turn = turn

    def end(self, size: int, *, has_more: bool) -> None:
        """End the step that `begin` began.

        Args:
            size: the quantity on which the step's time mainly depends, such as its number of tokens.
            has_more: whether another step, or a call of `withdraw`, follows.
        """
        turn, self._turn = self._turn, None
        assert turn is not None
        self._last_ns = self._clock.now_ns() - turn.started_ns
        was_alone = self._share.was_alone(turn)
        if was_alone:
            self._alone.record(size, int(self._last_ns))
        is_known = was_alone or self._alone.knows(size)
        alone_ns = self._last_ns if was_alone or not is_known else self._alone.of(size)
        self._share.end(turn, alone_ns, self._last_ns if has_more else None, is_known=is_known)

    def withdraw(self) -> None:
        """Stop waiting for a turn: there is no next step."""
        self._demand.tell(has_waiting=False)
        self._share.withdraw()

    def close(self) -> None:
        """Leave the pool. No step may be running."""
        self._balance.leave(self._demand)
        self._share.close()

    def _costs(self) -> Mapping[Unit, float]:
        """The time of the last step in ns, by unit; empty before the first step."""
        return {self._unit: self._last_ns} if self._last_ns else {}
