"""A model's share of a pool of hardware, through which the model takes turns with others."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from triune.arbiter.pool import DISPLACED_NS, PATIENCE_NS, PEER_RATIO, Pool, Running, Turn
from triune.core.units import Unit

if TYPE_CHECKING:
    from triune.arbiter.balance import Demand

_ACTIVE_NS: Final = 10_000_000_000
"""A model's latency objective counts for others until it has had no request for this time."""


class Share:
    """A model's share of a pool. Batches of its instances on one unit are one turn.

    Attributes:
        name: the model's name.
        weight: the model's weight relative to the other models'.
        num_units: how many of the pool's units the model is served on.
        tag_ns: the model's clock in the fair queueing of `arbiter`: its part of the time in which it computed, divided
            by `weight` and `portion`, in ns.
        waited_ns: the total time that it waited for its turn, in ns.
        num_waits: how often it waited.
        asked_ns: how long the batch that waited last takes alone.
        place: the key by which the pool sorts the waiting shares; only the pool reads it.
        is_asking: whether the model waits for its turn, or its turn has come and it has started no batch in it yet.
        demand: how many requests the model gets, and how long each unit takes for one; None if that is unknown.
        is_elsewhere: whether it leaves the pool to others that need it, since other hardware suits it relatively
            better.
        portion: the part of the pool's time that the model's requests need. The advance of its clock is divided by
            `portion` as well as by `weight`. 1 for all models while `arbiter.balance` does not divide the pools.
        num_bound: the number of waiting requests that no other pool can compute. The model does not leave the pool
            while there are any.
        objective_ns: the model's latency objective; 0 if it has none.
        arrived_ns: when the last request to a model with an objective arrived.
    """

    def __init__(
        self, name: str, pool: Pool, wake: Callable[[], None], weight: float, num_units: int, objective_ns: int = 0
    ) -> None:
        """Made by `Arbiter.join`, which describes the arguments."""
        self.name = name
        self.objective_ns = objective_ns
        self.arrived_ns = -_ACTIVE_NS
        self.weight = weight
        self.num_units = num_units
        self.tag_ns = 0.0
        self.waited_ns = 0
        self.num_waits = 0
        self.asked_ns = 0.0
        self.place: tuple[float, int] = (0.0, 0)
        self.is_asking = False
        self.demand: Demand | None = None
        self.is_elsewhere = False
        self.portion = 1.0
        self.num_bound = 0
        self._is_wanting = False
        self._pool = pool
        self._wake = wake
        self._running: dict[Unit, Running] = {}
        self._since_ns: int | None = None
        self._granted: Running | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether the model waits for its turn."""
        return self._since_ns is not None

    def is_blocked(self, now_ns: int) -> bool:
        """Whether the model may not start a batch now: it waits for its turn, and its longest waiting time has not
        passed.
        """
        since_ns = self._since_ns
        return since_ns is not None and (now_ns < since_ns + PATIENCE_NS or now_ns < self.patience_ends_ns())

    @property
    def has_turn(self) -> bool:
        """Whether the model's turn has come, and it has started no batch in it yet."""
        return self._granted is not None

    def others_objective_ns(self) -> int:
        """The least latency objective, in ns, of the other models that take turns with this one and had a request in
        the last ten seconds; 0 if there is none, or if all models compute at once, so that nobody waits for a turn.
        """
        pool = self._pool
        if not pool.objectives or pool.limit >= len(pool.shares):
            return 0
        since_ns = pool.clock.now_ns() - _ACTIVE_NS
        found = [each.objective_ns for each in pool.objectives if each is not self and each.arrived_ns > since_ns]
        return min(found, default=0)

    @property
    def is_pool_idle(self) -> bool:
        """Whether nothing computes in a turn on this hardware."""
        return not self._pool.running

    @property
    def has_own_turns(self) -> bool:
        """Whether the model computes on one of the pool's units at a time."""
        return self._pool.has_own_turns

    def patience_ends_ns(self) -> int:
        """The time from which a waiting model may compute in any case, if it asks again; 0 if it does not wait."""
        since_ns = self._since_ns
        if since_ns is None:
            return 0
        ends_ns = since_ns + (DISPLACED_NS if self.is_displaced() else PATIENCE_NS)
        return max(ends_ns, self.own_ends_ns()) if self._running else ends_ns

    def count_wanting(self) -> None:
        """Count this model in the pool's `num_wanting` if it has waiting requests that the pool should compute, else
        not. Call this when that may have changed. The caller holds the pool's lock.
        """
        wants = self.num_bound > 0 or (not self.is_elsewhere and self.demand is not None and self.demand.has_waiting)
        if wants is not self._is_wanting:
            self._is_wanting = wants
            self._pool.num_wanting += 1 if wants else -1

    def is_displaced(self) -> bool:
        """Whether this model should leave the pool to others: another model needs the pool, and this one loses less on
        another unit.
        """
        return self.is_elsewhere and not self.num_bound and self._pool.num_wanting > 0

    def bind(self, num_bound: int) -> None:
        """Set `num_bound`, the number of waiting requests that no other pool can compute. The caller does not hold the
        pool's lock.
        """
        if (num_bound > 0) is (self.num_bound > 0):
            # Turns depend only on whether `num_bound` is 0, which has not changed, so that none has to be granted.
            self.num_bound = num_bound
            return
        pool = self._pool
        with pool.lock:
            self.num_bound = num_bound
            self.count_wanting()
            now_ns = pool.clock.now_ns()
            pool.pass_time(now_ns)
            woken = pool.grant(now_ns)
        for share in woken:
            share._wake()

    def own_ends_ns(self) -> int:
        """The time until which the model's running batches keep its other units from starting; 0 if they do not.

        A second unit on the same hardware mostly slows down the first. A batch that seems to hang does not count.
        """
        if not self._running or not self._pool.has_own_turns:
            return 0
        ends_ns = 0
        # This iterates over a copy, since replicas of one model may start and end in several threads.
        for each in list(self._running.values()):
            if not each.is_beside and each.hangs_ns > ends_ns:
                ends_ns = each.hangs_ns
        return ends_ns

    def has_peers(self, expected_ns: float, now_ns: int) -> bool:
        """Whether the model already computes requests that are not much longer than a batch of `expected_ns`.

        A short batch may run beside longer batches of other models. If many equal requests wait, the last of their
        batches may be small and therefore short, but its requests are no shorter than those that the model already
        computes. So such a batch must not run beside other models.
        """
        if not self._running:
            return False
        return any(
            each.counts(now_ns) and each.request_ns <= expected_ns * PEER_RATIO for each in self._running.values()
        )

    def wait_ns(self, now_ns: int) -> float:
        """The expected time until the model's turn, in ns; 0 if the model does not wait."""
        return self._pool.wait_ns(now_ns) if self._since_ns is not None else 0.0

    def start(
        self, unit: Unit, expected_ns: float, request_ns: float | None = None, alone_ns: float | None = None
    ) -> Turn | None:
        """Start a batch if it is the model's turn. Otherwise `wake` is called when it is, and the model calls `start`
        again.

        Args:
            unit: the unit that computes the batch.
            expected_ns: how long the batch is expected to take; 0 if unknown.
            request_ns: how long its longest request would take in a batch of its own; None if the batch has only one
                request.
            alone_ns: how long such a batch takes while nothing else computes, by which short batches are known; 0 if
                that was not measured yet; None if it is `expected_ns`.

        Returns:
            the turn, which the model ends; None if the model has to wait.
        """
        pool = self._pool
        with pool.lock:
            now_ns = pool.clock.now_ns()
            pool.pass_time(now_ns)
            pool.judge(now_ns)
            request_ns = expected_ns if request_ns is None else request_ns
            alone_ns = expected_ns if alone_ns is None else alone_ns
            granted = self._granted
            if granted is not None and granted.is_beside and (alone_ns or expected_ns) > granted.expected_ns:
                # The turn beside a longer batch was given for a shorter one, which the model expected to be its next.
                pool.remove_running(granted)
                self._granted = None
                self.is_asking = False
            woken = pool.grant(now_ns)
            turn = self._start(unit, expected_ns, request_ns, alone_ns, now_ns)
        if woken:
            self._wake_others(woken)
        return turn

    def _start(self, unit: Unit, expected_ns: float, request_ns: float, alone_ns: float, now_ns: int) -> Turn | None:
        pool = self._pool
        if self._since_ns is not None:
            if now_ns < self.patience_ends_ns():
                return None
            self.take_turn(now_ns)
        running = self._running.get(unit)
        if self._granted is not None:
            running = self._use_turn(unit, running)
        elif running is None or pool.has_earlier(self.tag_ns):
            # Whoever else waits may not start now, although there is room: `start` has given turns to all others.
            is_open = running is None and pool.has_room(now_ns) and now_ns >= self.own_ends_ns()
            if not is_open and not (running is None and pool.may_pass(self, alone_ns or expected_ns, now_ns)):
                self._wait(alone_ns or expected_ns, now_ns)
                return None
            running = Running(self, unit, not is_open)
            pool.add_running(running)
            self._running[unit] = running
            if self.tag_ns < pool.virtual_ns:
                self.tag_ns = pool.virtual_ns
        if not running.is_beside and pool.virtual_ns < self.tag_ns:
            pool.virtual_ns = self.tag_ns
        if not running.num_batches or running.request_ns < request_ns:
            running.request_ns = request_ns
        running.num_batches += 1
        running.started_ns, running.expected_ns, running.is_known = now_ns, expected_ns, alone_ns > 0
        pool.num_starts += 1
        pool.window.began()
        was_alone = running.num_batches == 1 and len(pool.running) == 1
        return Turn(running, now_ns, pool.crowded_part_ns, pool.part_ns, pool.num_starts, was_alone)

    def was_alone(self, turn: Turn) -> bool:
        """Whether nothing else computed during a turn so far."""
        return turn.was_alone and turn.num_starts == self._pool.num_starts

    def end(self, turn: Turn, alone_ns: float, next_ns: float | None = None, *, is_known: bool = True) -> float:
        """End a turn, and give turns to waiting models.

        Args:
            turn: a turn of this share.
            alone_ns: how long the batch would have taken alone, on the model's fastest unit.
            next_ns: how long the model's next batch takes alone, as far as known, if it has one; then it waits for its
                turn from now on, unless its turn has come already.
            is_known: whether `alone_ns` was measured while nothing else computed. If not, an equal part of the hardware
                during the batch is the most that counts: its time beside others would say that these cost nothing.

        Returns:
            the batch's part of the time that it took, in ns: all of it if nothing else computed.
        """
        pool, running = self._pool, turn.running
        if self.demand is not None and self.demand.has_waiting is (next_ns is None):
            self.demand.tell(has_waiting=next_ns is not None)
        with pool.lock:
            now_ns = pool.clock.now_ns()
            pool.pass_time(now_ns)
            part_ns = pool.part_ns - turn.part_ns
            if part_ns > 0:
                if not is_known:
                    alone_ns = min(alone_ns, part_ns)
                # Speedup is measured only over the time in which at least two models wanted to compute.
                part = pool.window.overlap_ns(turn.crowded_part_ns, pool.crowded_part_ns) / part_ns
                if part:
                    pool.concurrency.record(alone_ns * part, now_ns - turn.started_ns)
            pool.window.ended(turn.num_starts)
            pool.judge(now_ns)
            # Only its part is charged: a long batch would pay for the short ones that went beside it.
            tag_ns = self.tag_ns + part_ns / (self.weight * self.portion)
            if self._since_ns is None:
                self.tag_ns = tag_ns
            else:
                pool.move_waiting(self, tag_ns)
            running.num_batches -= 1
            woken: Sequence[Share] = ()
            if not running.num_batches:
                assert running.unit is not None
                del self._running[running.unit]
                pool.remove_running(running)
                if next_ns is not None and self._since_ns is None and self._granted is None:
                    self._wait(next_ns, now_ns)
                woken = pool.grant(now_ns)
        if woken:
            self._wake_others(woken)
        return part_ns

    def return_unused(self, now_ns: int, *, has_waiting: bool) -> int:
        """Give back a turn in which no batch was started, or stop waiting for a turn. While requests wait, the model
        does so only after its longest waiting time.

        Args:
            now_ns: the time.
            has_waiting: whether the model has requests that wait and can compute on other units, too.

        Returns:
            the time from which the model may compute without a turn (`patience_ends_ns`); 0 if it does not wait any
            more.
        """
        if not self.is_asking:
            return 0
        if has_waiting or self.num_bound:
            ends_ns = self.patience_ends_ns()
            if now_ns < ends_ns:
                return ends_ns
        self.withdraw()
        return 0

    def withdraw(self) -> None:
        """Stop waiting for a turn, and give back a turn in which no batch was started."""
        if not self.is_asking:
            return
        pool = self._pool
        woken: Sequence[Share] = ()
        with pool.lock:
            now_ns = pool.clock.now_ns()
            pool.pass_time(now_ns)
            if self._granted is not None:
                pool.remove_running(self._granted)
                self._granted = None
                self.is_asking = False
                woken = pool.grant(now_ns)
            elif self._since_ns is not None:
                self._end_wait(now_ns)
        self._wake_others(woken)

    def close(self) -> None:
        """Leave the pool. No turn may be running."""
        if self.demand is not None:
            self.demand.tell(has_waiting=False)
        self.withdraw()
        with self._pool.lock:
            self._pool.leave(self)

    def take_turn(self, now_ns: int, *, is_beside: bool = False) -> None:
        """End the wait: the next `start` succeeds. The caller holds the pool's lock. `is_beside` says whether the batch
        runs beside a longer batch that has not ended.
        """
        self._end_wait(now_ns)
        self._granted = Running(self, None, is_beside, now_ns, self.asked_ns)
        self._pool.add_running(self._granted)
        self.is_asking = True

    def _wake_others(self, woken: "Iterable[Share]") -> None:
        """Wake models whose turn has come. The caller must not hold the pool's lock, since a woken model may ask for it
        at once.
        """
        for share in woken:
            if share is not self:
                share._wake()

    def _use_turn(self, unit: Unit, running: Running | None) -> Running:
        granted, self._granted = self._granted, None
        self.is_asking = False
        assert granted is not None
        if running is not None:
            self._pool.remove_running(granted)
            return running
        granted.unit = unit
        self._running[unit] = granted
        return granted

    def _wait(self, alone_ns: float, now_ns: int) -> None:
        self.tag_ns = max(self.tag_ns, self._pool.virtual_ns)
        self.asked_ns, self._since_ns = alone_ns, now_ns
        self._pool.add_waiting(self)
        self.is_asking = True

    def _end_wait(self, now_ns: int) -> None:
        assert self._since_ns is not None
        self._pool.remove_waiting(self)
        self.is_asking = False
        self.num_waits += now_ns > self._since_ns
        self.waited_ns += now_ns - self._since_ns
        self._since_ns = None
