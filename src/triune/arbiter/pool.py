"""Hardware that models share, and their shares of it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from triune.arbiter.concurrency import Concurrency
from triune.core.clock import Clock
from triune.core.units import Unit

SHORT_RATIO: Final = 8
"""A batch goes beside the others if it is expected to take less than the wait for its turn, divided by this."""

PATIENCE_NS: Final = 200_000_000
"""The longest wait for a turn. What computes for longer than this holds nobody up any more."""


_OVERDUE: Final = 0.25
"""The part of the time that a batch has taken so far which it takes at least from then on."""


@dataclass(eq=False, slots=True)
class Running:
    """Batches of one model that compute on one unit.

    Attributes:
        share: the model's.
        unit: the unit; None for a turn in which no batch has started yet.
        is_beside: whether they go beside the others, since they are short.
        started_ns: when the batch that began last began.
        expected_ns: how long it is expected to take.
        num_batches: how many there are: each instance of the model may have one.
    """

    share: "Share"
    unit: Unit | None
    is_beside: bool = False
    started_ns: int = 0
    expected_ns: float = 0.0
    num_batches: int = 0

    def counts(self, now_ns: int) -> bool:
        """Whether others wait for it: it is not beside them, and has not computed for longer than PATIENCE_NS."""
        return not self.is_beside and now_ns < self.started_ns + PATIENCE_NS

    def remaining_ns(self, now_ns: int) -> float:
        """The expected time until its end. What takes longer than expected may take much longer."""
        elapsed_ns = now_ns - self.started_ns
        return max(self.expected_ns - elapsed_ns, elapsed_ns * _OVERDUE)


class Turn(NamedTuple):
    """A batch that computes.

    Attributes:
        running: where it is counted.
        started_ns: when it began.
        crowded_ns: the pool's `crowded_ns` at that time.
        num_starts: the pool's `num_starts` with this one.
        was_alone: whether nothing else computed when it began.
    """

    running: Running
    started_ns: int
    crowded_ns: float
    num_starts: int
    was_alone: bool


class Pool:
    """Hardware that models share. All shares use its lock.

    Attributes:
        shares: of all models that may compute here.
        waiting: those that wait for their turn.
        running: what computes, and the turns in which nothing computes yet.
        concurrency: how many compute at once.
        num_starts: how many batches have begun.
        crowded_ns: how long, in all, at least two wanted to compute.
        virtual_ns: the clock of the model that began last.
    """

    def __init__(self, clock: Clock, lock: threading.Lock) -> None:
        """Args:
        clock: measures how long models compute.
        lock: guards the pool and its shares.
        """
        self.clock = clock
        self.lock = lock
        self.shares: list[Share] = []
        self.waiting: list[Share] = []
        self.running: list[Running] = []
        self.concurrency = Concurrency()
        self.num_starts = 0
        self.crowded_ns = 0.0
        self.virtual_ns = 0.0
        self._changed_ns = 0
        self._num_units = 0
        self._has_weights = False

    def join(self, share: "Share") -> None:
        """Add a model. The caller owns the lock."""
        self._set([*self.shares, share])

    def leave(self, share: "Share") -> None:
        """Remove a model. The caller owns the lock."""
        self._set([each for each in self.shares if each is not share])

    def _set(self, shares: "list[Share]") -> None:
        self.shares = shares
        self._num_units = sum(each.num_units for each in shares)
        self._has_weights = len({each.weight for each in shares}) > 1

    @property
    def limit(self) -> int:
        """How many may compute at once. One if weights differ, since only turns can follow weights."""
        return 1 if self._has_weights else self.concurrency.level or self._num_units

    def has_room(self, now_ns: int) -> bool:
        """Whether one more may compute."""
        return sum(each.counts(now_ns) for each in self.running) < self.limit

    @property
    def has_passed(self) -> bool:
        """Whether a short batch goes beside the others."""
        return any(each.is_beside for each in self.running)

    def pass_time(self, now_ns: int) -> None:
        """Count the time since the last change. The caller owns the lock, and changes what runs or waits after this."""
        if len(self.running) + len(self.waiting) > 1:
            elapsed_ns = now_ns - self._changed_ns
            self.crowded_ns += elapsed_ns
            longest_ns = max((max(now_ns - each.started_ns, each.expected_ns) for each in self.running), default=0.0)
            self.concurrency.passed(elapsed_ns, self._num_units, longest_ns)
        self._changed_ns = now_ns

    def has_earlier(self, tag_ns: float) -> bool:
        """Whether a model waits whose clock is behind `tag_ns`."""
        return any(each.tag_ns < tag_ns for each in self.waiting)

    def wait_ns(self, now_ns: int) -> float:
        """The expected time until one of those that others wait for has ended."""
        return min((each.remaining_ns(now_ns) for each in self.running if each.counts(now_ns)), default=0.0)

    def may_pass(self, expected_ns: float, now_ns: int) -> bool:
        """Whether a batch may go beside the others, since it is short."""
        return expected_ns * SHORT_RATIO < self.wait_ns(now_ns) and not self.has_passed

    def grant(self, now_ns: int) -> "list[Share]":
        """Give turns to those that wait, the earliest first, while more may compute. Returns those to wake."""
        woken: list[Share] = []
        while self.waiting and self.has_room(now_ns):
            share = min(self.waiting, key=lambda each: each.tag_ns)
            share.take_turn(now_ns)
            woken.append(share)
        for share in sorted(self.waiting, key=lambda each: each.tag_ns):
            if self.may_pass(share.asked_ns, now_ns):
                share.take_turn(now_ns, is_beside=True)
                woken.append(share)
        return woken


class Share:
    """A model's share of a pool. Batches of its instances on one unit are one turn.

    Attributes:
        name: the model's name.
        weight: the model's part of the pool, in relation to those of others.
        num_units: how many of the pool's units the model is served on.
        tag_ns: the model's clock.
        waited_ns: how long, in all, it waited for its turn.
        num_waits: how often it waited.
        asked_ns: how long the batch that waited last is expected to take.
    """

    def __init__(self, name: str, pool: Pool, wake: Callable[[], None], weight: float, num_units: int) -> None:
        """Use `Arbiter.join`. Arguments as there."""
        self.name = name
        self.weight = weight
        self.num_units = num_units
        self.tag_ns = 0.0
        self.waited_ns = 0
        self.num_waits = 0
        self.asked_ns = 0.0
        self._pool = pool
        self._wake = wake
        self._running: dict[Unit, Running] = {}
        self._since_ns: int | None = None
        self._granted: Running | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether the model waits for its turn."""
        return self._since_ns is not None

    @property
    def is_blocked(self) -> bool:
        """Whether the model cannot start a batch now: it waits, and not for too long yet."""
        return self._since_ns is not None and self._pool.clock.now_ns() < self._since_ns + PATIENCE_NS

    @property
    def has_turn(self) -> bool:
        """Whether the model's turn has come, and it has started no batch in it yet."""
        return self._granted is not None

    @property
    def patience_ends_ns(self) -> int:
        """The time at which a waiting model computes in any case, if it asks again; 0 if it does not wait."""
        since_ns = self._since_ns
        return since_ns + PATIENCE_NS if since_ns is not None else 0

    def wait_ns(self, now_ns: int) -> float:
        """The expected time until the model's turn; 0 if it does not wait."""
        return self._pool.wait_ns(now_ns) if self._since_ns is not None else 0.0

    def start(self, unit: Unit, expected_ns: float) -> Turn | None:
        """Start a batch, if it is the model's turn; else `wake` is called when it is, and the model asks again.

        Args:
            unit: what it computes with.
            expected_ns: how long the batch is expected to take; 0 if unknown.

        Returns:
            the turn, which the model ends; None if the model has to wait.
        """
        pool = self._pool
        with pool.lock:
            now_ns = pool.clock.now_ns()
            pool.pass_time(now_ns)
            woken = pool.grant(now_ns)
            turn = self._start(unit, expected_ns, now_ns)
        for share in woken:
            if share is not self:
                share._wake()
        return turn

    def _start(self, unit: Unit, expected_ns: float, now_ns: int) -> Turn | None:
        pool = self._pool
        if self._since_ns is not None:
            if now_ns < self._since_ns + PATIENCE_NS:
                return None
            self.take_turn(now_ns)
        running = self._running.get(unit)
        if self._granted is not None:
            running = self._use_turn(unit, running)
        elif running is None or pool.has_earlier(self.tag_ns):
            is_open = running is None and not pool.waiting and pool.has_room(now_ns)
            if not is_open and not (running is None and pool.may_pass(expected_ns, now_ns)):
                self._wait(expected_ns, now_ns)
                return None
            running = Running(self, unit, is_beside=not is_open)
            pool.running.append(running)
            self._running[unit] = running
            self.tag_ns = max(self.tag_ns, pool.virtual_ns)
        if not running.is_beside:
            pool.virtual_ns = max(pool.virtual_ns, self.tag_ns)
        running.num_batches += 1
        running.started_ns, running.expected_ns = now_ns, expected_ns
        pool.num_starts += 1
        was_alone = len(pool.running) == 1 and running.num_batches == 1
        return Turn(running, now_ns, pool.crowded_ns, pool.num_starts, was_alone)

    def was_alone(self, turn: Turn) -> bool:
        """Whether nothing else computed during a turn so far."""
        return turn.was_alone and turn.num_starts == self._pool.num_starts

    def end(self, turn: Turn, alone_ns: float, next_ns: float | None = None) -> None:
        """End a turn, and let those compute that wait.

        Args:
            turn: of this share.
            alone_ns: how long the batch would have taken alone, on the model's fastest unit.
            next_ns: how long the model's next batch is expected to take, if it has one; then it waits for its turn
                from now on, unless it is its turn.
        """
        pool, running = self._pool, turn.running
        with pool.lock:
            now_ns = pool.clock.now_ns()
            pool.pass_time(now_ns)
            took_ns = now_ns - turn.started_ns
            if took_ns > 0:
                # What is measured is the time in which at least two wanted to compute.
                part = (pool.crowded_ns - turn.crowded_ns) / took_ns
                pool.concurrency.record(alone_ns * part, took_ns)
            self.tag_ns += took_ns / self.weight
            running.num_batches -= 1
            woken: list[Share] = []
            if not running.num_batches:
                assert running.unit is not None
                del self._running[running.unit]
                pool.running.remove(running)
                if next_ns is not None and self._since_ns is None and self._granted is None:
                    self._wait(next_ns, now_ns)
                woken = [each for each in pool.grant(now_ns) if each is not self]
        for share in woken:
            share._wake()

    def withdraw(self) -> None:
        """Wait no more, and give back a turn in which no batch was started."""
        if self._since_ns is None and self._granted is None:
            return
        pool = self._pool
        woken: list[Share] = []
        with pool.lock:
            now_ns = pool.clock.now_ns()
            pool.pass_time(now_ns)
            if self._granted is not None:
                pool.running.remove(self._granted)
                self._granted = None
                woken = pool.grant(now_ns)
            elif self._since_ns is not None:
                self._end_wait(now_ns)
        for share in woken:
            share._wake()

    def close(self) -> None:
        """Leave the pool. No turn may be running."""
        self.withdraw()
        with self._pool.lock:
            self._pool.leave(self)

    def take_turn(self, now_ns: int, *, is_beside: bool = False) -> None:
        """End the wait: the next `start` succeeds. The caller owns the pool's lock."""
        self._end_wait(now_ns)
        self._granted = Running(self, None, is_beside, now_ns, self.asked_ns)
        self._pool.running.append(self._granted)

    def _use_turn(self, unit: Unit, running: Running | None) -> Running:
        granted, self._granted = self._granted, None
        assert granted is not None
        if running is not None:
            self._pool.running.remove(granted)
            return running
        granted.unit = unit
        self._running[unit] = granted
        return granted

    def _wait(self, expected_ns: float, now_ns: int) -> None:
        self._pool.waiting.append(self)
        self.tag_ns = max(self.tag_ns, self._pool.virtual_ns)
        self.asked_ns, self._since_ns = expected_ns, now_ns

    def _end_wait(self, now_ns: int) -> None:
        assert self._since_ns is not None
        self._pool.waiting.remove(self)
        self.num_waits += now_ns > self._since_ns
        self.waited_ns += now_ns - self._since_ns
        self._since_ns = None
