"""A pool: hardware that models share, such as the CPU's cores."""

import math
import threading
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from triune.arbiter.concurrency import ALL_UNITS, Concurrency
from triune.arbiter.window import Window
from triune.core.clock import Clock
from triune.core.units import Unit

if TYPE_CHECKING:
    from triune.arbiter.share import Share

SHORT_RATIO: Final = 4
"""A batch runs beside the others if the time that it takes alone is less than the wait for its turn divided by this."""

PEER_RATIO: Final = 8
"""A batch is much shorter than a request of its own model if it takes less than the request's time divided by this."""

PATIENCE_NS: Final = 200_000_000
"""The longest wait for a turn, in nanoseconds. A batch that computes for longer than this no longer keeps others
waiting.
"""

DISPLACED_NS: Final = 5_000_000_000
"""The longest wait, in nanoseconds, of a model that leaves the pool to other models, since it can compute on another
unit meanwhile.
"""

_HANGS_RATIO: Final = 8
"""A batch seems to hang if it takes this number of times as long as expected, and at least PATIENCE_NS."""

_OVERDUE: Final = 0.25
"""A batch is always expected to go on for at least this part of the time that it has computed so far."""


def remaining_ns(expected_ns: float, elapsed_ns: float) -> float:
    """The time that a batch is still expected to take, in nanoseconds: at least the fraction `_OVERDUE` of the time
    that it has taken so far, since a batch that is late may take much longer.
    """
    return max(expected_ns - elapsed_ns, elapsed_ns * _OVERDUE)


@dataclass(eq=False, slots=True)
class Running:
    """Batches of one model that compute on one unit.

    Attributes:
        share: the model's share.
        unit: the unit; None for a turn in which no batch has started yet.
        is_beside: whether they run beside the others without a turn, since they are short.
        started_ns: when the latest of the batches began.
        expected_ns: how long the latest of the batches is expected to take.
        request_ns: how long the longest of their requests is expected to take by itself.
        is_known: whether it is known how long the latest of the batches takes alone.
        num_batches: the number of batches; each instance of the model may have one.
    """

    share: "Share"
    unit: Unit | None
    is_beside: bool = False
    started_ns: int = 0
    expected_ns: float = 0.0
    request_ns: float = 0.0
    is_known: bool = True
    num_batches: int = 0

    def counts(self, now_ns: int) -> bool:
        """Whether other models must wait because of these batches. They need not if `is_beside`, or if the latest batch
        has computed for more than PATIENCE_NS.
        """
        return not self.is_beside and now_ns < self.started_ns + PATIENCE_NS

    @property
    def hangs_ns(self) -> int:
        """The time at which the running batches seem to hang, if they have not ended by then."""
        return self.started_ns + max(PATIENCE_NS, int(self.expected_ns * _HANGS_RATIO))

    def remaining_ns(self, now_ns: int) -> float:
        """The time in nanoseconds until the running batches are expected to end."""
        return remaining_ns(self.expected_ns, now_ns - self.started_ns)


class Turn(NamedTuple):
    """A batch that computes.

    Attributes:
        running: the entry in which the batch is counted.
        started_ns: when it began.
        crowded_part_ns: the pool's `crowded_part_ns` at that time.
        part_ns: the pool's `part_ns` at that time.
        num_starts: the pool's `num_starts`, including this batch.
        was_alone: whether nothing else computed when it began.
    """

    running: Running
    started_ns: int
    crowded_part_ns: float
    part_ns: float
    num_starts: int
    was_alone: bool


class Pool:
    """Hardware that models share. All shares use its lock.

    A hundred models may wait, and each batch looks up the next one. So the waiting models are kept sorted.

    Attributes:
        shares: the shares of all models that may compute here.
        waiting: the shares that wait for their turn, sorted by clock, the clock furthest behind first; of equal clocks
            the one that has waited longest.
        running: the running batches, and the turns in which no batch has started yet.
        limit: how many models may compute at once. It is one if weights differ, since only turns can follow weights.
        has_own_turns: whether the units of each model take turns with each other.
        concurrency: chooses how many models compute at once.
        window: the window in which that is measured.
        num_starts: how many batches have begun.
        part_ns: the total time that each running batch had of the hardware, if it was divided equally among them.
        crowded_part_ns: the same, of the time during which at least two models wanted to compute.
        virtual_ns: the clock of the model that began last.
        num_wanting: the number of models that have waiting requests for this pool, and do not leave it to others.
        objectives: the shares of models with a latency objective.
    """

    def __init__(self, clock: Clock, lock: threading.Lock) -> None:
        """Args:
        clock: the clock that measures how long models compute.
        lock: the lock that guards the pool and its shares.
        """
        self.clock = clock
        self.lock = lock
        self.shares: list[Share] = []
        self.waiting: list[Share] = []
        self.running: list[Running] = []
        self.concurrency = Concurrency()
        self.window = Window()
        self.num_starts = 0
        self.part_ns = self.crowded_part_ns = 0.0
        self.virtual_ns = 0.0
        self.num_wanting = 0
        self.objectives: Sequence[Share] = ()
        self.limit = 0
        self.has_own_turns = True
        self._changed_ns = 0
        self._is_due = False
        self._num_units = 0
        self._has_units = False
        self._has_weights = False
        self._num_waits = 0
        self._num_beside = 0
        # For each waiting model, in the order of `waiting`: its `tag_ns`, and a number that grows with each wait.
        self._places: list[tuple[float, int]] = []
        # One entry for each waiting model, sorted by the expected time of its batch: that time, and the second number
        # of the model's entry in `_places`.
        self._times: list[tuple[float, int]] = []

    def join(self, share: "Share") -> None:
        """Add a model. The caller holds the lock."""
        self._set([*self.shares, share])

    def leave(self, share: "Share") -> None:
        """Remove a model. The caller holds the lock."""
        self._set([each for each in self.shares if each is not share])

    def _set(self, shares: "list[Share]") -> None:
        self.shares = shares
        self.objectives = [each for each in shares if each.objective_ns]
        self._num_units = sum(each.num_units for each in shares)
        self._has_units = any(each.num_units > 1 for each in shares)
        self._has_weights = len({each.weight for each in shares}) > 1
        self._set_limit()

    def _set_limit(self) -> None:
        level = self.concurrency.level
        self.limit = 1 if self._has_weights else level if level > 0 else self._num_units
        self.has_own_turns = self._has_weights or level != ALL_UNITS

    def has_room(self, now_ns: int) -> bool:
        """Whether one more batch may compute now: fewer than `limit` of the running batches make others wait."""
        left = self.limit
        if len(self.running) < left:
            return True
        for each in self.running:
            if not each.is_beside and now_ns < each.started_ns + PATIENCE_NS:
                left -= 1
        return left > 0

    def add_running(self, running: Running) -> None:
        """Add a running batch, or a turn in which no batch has started yet. The caller holds the lock."""
        self.running.append(running)
        self._num_beside += running.is_beside

    def remove_running(self, running: Running) -> None:
        """Remove an entry that `add_running` added. The caller holds the lock."""
        self.running.remove(running)
        self._num_beside -= running.is_beside

    def add_waiting(self, share: "Share") -> None:
        """Add a model's share, which waits for a turn. Its `tag_ns` and `asked_ns` must be set already. The caller
        holds the lock.
        """
        self._num_waits += 1
        self._insert(share, self._num_waits)
        time = (share.asked_ns, self._num_waits)
        self._times.insert(bisect_left(self._times, time), time)

    def remove_waiting(self, share: "Share") -> None:
        """Remove a model's share, which waits for a turn no more. The caller holds the lock."""
        number = self._remove(share)
        del self._times[bisect_left(self._times, (share.asked_ns, number))]

    def move_waiting(self, share: "Share", tag_ns: float) -> None:
        """Set the clock (`tag_ns`) of a share that waits, and put it at its new place in the order of the waiting ones.
        The caller holds the lock.
        """
        number = self._remove(share)
        share.tag_ns = tag_ns
        self._insert(share, number)

    def _insert(self, share: "Share", number: int) -> None:
        place = share.place = (share.tag_ns, number)
        index = bisect_left(self._places, place)
        self._places.insert(index, place)
        self.waiting.insert(index, share)

    def _remove(self, share: "Share") -> int:
        index = bisect_left(self._places, share.place)
        del self._places[index], self.waiting[index]
        return share.place[1]

    def pass_time(self, now_ns: int) -> None:
        """Add the time since the last change to the pool's counters. The caller holds the lock, and changes what runs
        or waits only after this call.
        """
        elapsed_ns = now_ns - self._changed_ns
        part_ns = elapsed_ns / max(1, len(self.running))
        self.part_ns += part_ns
        if len(self.running) + len(self.waiting) > 1:
            self.crowded_part_ns += part_ns
            if not self.window.is_closed:
                self._is_due = self.concurrency.passed(elapsed_ns)
        self._changed_ns = now_ns

    def judge(self, now_ns: int) -> None:
        """Choose anew how many models compute at once, if that is due. The caller holds the lock, and has called
        `pass_time`, and recorded the batch that has ended.
        """
        if self._is_due and not self.window.is_closed and self.concurrency.is_measured(self._longest_ns(now_ns)):
            self.window.close(self.crowded_part_ns, self.num_starts)
        if self.window.is_over:
            self._is_due = False
            self.concurrency.choose(len(self.shares), has_units=self._has_units)
            self.window.reopen(self.crowded_part_ns)
            self._set_limit()

    def _longest_ns(self, now_ns: int) -> float:
        """The time of the longest running batch, in nanoseconds: what it has taken so far or is expected to take,
        whichever is more.
        """
        return max((max(now_ns - each.started_ns, each.expected_ns) for each in self.running), default=0.0)

    def has_earlier(self, tag_ns: float) -> bool:
        """Whether a waiting model comes before one whose clock is `tag_ns`, since its own clock is further behind."""
        return bool(self._places) and self._places[0][0] < tag_ns

    def wait_ns(self, now_ns: int) -> float:
        """The expected time, in ns, until one of the running batches ends that make other batches wait."""
        least_ns = math.inf
        for each in self.running:
            elapsed_ns = now_ns - each.started_ns
            if not each.is_beside and elapsed_ns < PATIENCE_NS:
                left_ns = remaining_ns(each.expected_ns, elapsed_ns)
                if left_ns < least_ns:
                    least_ns = left_ns
        return 0.0 if least_ns == math.inf else least_ns

    def may_pass(self, share: "Share", alone_ns: float, now_ns: int) -> bool:
        """Whether a batch of a model, which takes `alone_ns` by itself, may run beside the running ones: it is
        short enough, no other batch runs beside them, none of them has to be measured alone, the model would be next
        when they end, and it computes no similar requests already (`Share.has_peers`).
        """
        if not self._has_room_beside:
            return False
        is_short = alone_ns * SHORT_RATIO < self.wait_ns(now_ns)
        return is_short and share.tag_ns <= self._next_tag_ns(now_ns) and not share.has_peers(alone_ns, now_ns)

    def _next_tag_ns(self, now_ns: int) -> float:
        """The earliest clock that one of the running models will have when its batch ends. A model whose clock is
        behind that has its turn before them then, so that it gets no more than its share if it goes beside them.
        """
        tags = [
            each.share.tag_ns
            + max(each.expected_ns, now_ns - each.started_ns) / (each.share.weight * each.share.portion)
            for each in self.running
            if each.counts(now_ns)
        ]
        return min(tags, default=math.inf)

    @property
    def _has_room_beside(self) -> bool:
        """Whether a short batch may run beside the running ones. They compute alone until it is known how long that
        takes: otherwise nobody knows what is gained or lost when several compute.
        """
        return not self._num_beside and (self.limit > 1 or all(each.is_known for each in self.running))

    def grant(self, now_ns: int) -> "Sequence[Share]":
        """Give turns to waiting shares, the one with the earliest clock first, as long as more may compute. Returns the
        shares to wake.
        """
        if not self.waiting:
            return ()
        woken: list[Share] = []
        while self.waiting and self.has_room(now_ns):
            share = self._first(now_ns)
            if share is None:
                break
            share.take_turn(now_ns)
            woken.append(share)
        if self.waiting and self._has_room_beside:
            most_ns = self.wait_ns(now_ns) / SHORT_RATIO
            share = self._first_short(most_ns, now_ns) if self._times[0][0] < most_ns else None
            if share is not None:
                share.take_turn(now_ns, is_beside=True)
                woken.append(share)
        return woken

    def _first(self, now_ns: int) -> "Share | None":
        """The share whose clock is furthest behind, among those that wait and may compute; None if there is none."""
        for each in self.waiting:
            if now_ns >= each.own_ends_ns() and not each.is_displaced():
                return each
        return None

    def _first_short(self, most_ns: float, now_ns: int) -> "Share | None":
        """The share whose clock is furthest behind, among those that wait with a batch of less than `most_ns`,
        which may run beside the running ones (`may_pass`). None if there is none.
        """
        most_tag_ns = self._next_tag_ns(now_ns)
        for each in self.waiting:
            if each.tag_ns > most_tag_ns:
                return None
            if each.asked_ns < most_ns and not each.has_peers(each.asked_ns, now_ns):
                return each
        return None
