"""The request queue: priority levels, size limits and timeouts of Triton's queue policies."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from triune.config.policy import MIN_WAITING, BatchingPolicy, TimeoutAction
from triune.core.errors import UnavailableError
from triune.core.power import PowerMode
from triune.core.requests import InferenceResponse
from triune.core.servable import Call
from triune.core.units import Unit
from triune.scheduling.division import Division


@dataclass(slots=True, eq=False, repr=False)
class Pending:
    """A call between its arrival and its answer.

    Attributes:
        call: the checked request.
        future: receives the answer. Its owner may cancel it at any time.
        arrived_ns: the arrival time, on the dispatcher's clock.
        deadline_ns: the time by which the request must start; 0 if it has no timeout.
        level: its priority level.
        group: requests of equal groups may share a batch.
        unit: the unit that the client asked for; None leaves the choice to the dispatcher.
        mode: the power mode that the client asked for; None means the server's mode.
        division: the division that this is a part of; None for a whole request.
        row: the index of the part's first row in the whole request.
        is_waiting: whether it is in the queue.
        num_elements: the number of elements in its inputs, or the call's size. Run times are estimated from it.
    """

    call: Call
    future: asyncio.Future[InferenceResponse]
    arrived_ns: int
    deadline_ns: int = 0
    level: int = 0
    group: object = None
    unit: Unit | None = None
    mode: PowerMode | None = None
    division: Division | None = None
    row: int = 0
    is_waiting: bool = False
    num_elements: int = field(init=False)

    def __post_init__(self) -> None:
        size = self.call.size
        self.num_elements = sum(array.size for array in self.call.inputs.values()) if size is None else size


class _Level(NamedTuple):
    """The waiting requests of one priority level.

    Attributes:
        in_time: whole requests that are not past their timeout.
        parts: parts of divided requests.
        delayed: whole requests that are past their timeout, with Triton's action DELAY.
    """

    in_time: deque[Pending]
    parts: deque[Pending]
    delayed: deque[Pending]

    @property
    def size(self) -> int:
        """The number of waiting requests."""
        return len(self.in_time) + len(self.parts) + len(self.delayed)


class RequestQueue:
    """Waiting requests, in the order in which they should run.

    Lower priority levels come first. Within a level, requests that are past their timeout, with Triton's action DELAY,
    come after all others. Otherwise requests are ordered by arrival, or by size if the policy is fair. With a fair
    policy, the oldest request of a level runs once the requests that overtook it have together at least its size.

    Parts of divided requests (`Division`) come after the whole requests, which are smaller or came later. But the
    oldest part runs once the whole requests that overtook it have together at least its size.

    Attributes:
        size: the number of waiting requests.
        named: for each unit that waiting requests name, the number of these requests.
    """

    def __init__(self, policy: BatchingPolicy) -> None:
        self._policy = policy
        self._num_passed = 0
        self._num_passed_parts = 0
        self._levels: dict[int, _Level] = {}
        self.size = 0
        self.named: Counter[Unit] = Counter()
        self._earliest_ns = 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Pending]:
        levels = self._levels
        waiting = [each for level in sorted(levels) for each in self._in_order(levels[level]) if each]
        return chain.from_iterable(map(self._by_size, waiting) if self._policy.is_fair else waiting)

    def _in_order(self, level: _Level) -> tuple[deque[Pending], ...]:
        in_time, parts, delayed = level
        is_due = bool(parts) and self._num_passed_parts >= parts[0].num_elements
        return (parts, in_time, delayed) if is_due else level

    def _by_size(self, waiting: deque[Pending]) -> Iterable[Pending]:
        rest = list(waiting)
        first = [rest.pop(0)] if rest and self._num_passed >= rest[0].num_elements else []
        # Sort by size in powers of two, so that requests of similar size keep their order of arrival.
        return first + sorted(rest, key=lambda each: each.num_elements.bit_length())

    def push(self, pending: Pending, request_ns: Callable[[], float]) -> None:
        """Append a request to the queue, and set its level and deadline.

        Args:
            pending: the request.
            request_ns: returns the time per request under load, or 0 if unknown; called only if many requests wait.

        Raises:
            UnavailableError: its level is full, or too many requests wait.
        """
        policy = self._policy
        level = pending.call.request.priority
        if not 1 <= level <= policy.num_priority_levels:
            level = policy.default_priority_level
        rules = policy.policy_of(level)
        waiting = self._levels.get(level)
        if rules.max_queue_size:
            if waiting is not None and waiting.size >= rules.max_queue_size:
                raise UnavailableError(
                    f"Exceeds maximum queue size of model '{pending.call.request.model}', {rules.max_queue_size}: "
                    "send fewer requests at once, or try again later"
                )
        elif self.size >= min(MIN_WAITING, policy.queue_limits.max_requests or MIN_WAITING):
            self._check_limits(pending, level, request_ns)
        timeout_us = rules.default_timeout_us
        if rules.allow_timeout_override and pending.call.request.timeout_us:
            timeout_us = min(timeout_us or pending.call.request.timeout_us, pending.call.request.timeout_us)
        pending.level = level
        pending.deadline_ns = pending.arrived_ns + timeout_us * 1000 if timeout_us else 0
        if pending.deadline_ns:
            self._earliest_ns = min(self._earliest_ns or pending.deadline_ns, pending.deadline_ns)
        self.append(pending)

    def append(self, pending: Pending) -> None:
        """Append a request whose level and deadline are set, whatever the limits."""
        waiting = self._levels.get(pending.level) or self._levels.setdefault(
            pending.level, _Level(deque(), deque(), deque())
        )
        (waiting.in_time if pending.division is None else waiting.parts).append(pending)
        pending.is_waiting = True
        self.size += 1
        if pending.unit is not None:
            self.named[pending.unit] += 1

    def _check_limits(self, pending: Pending, level: int, request_ns: Callable[[], float]) -> None:
        model, limits = pending.call.request.model, self._policy.queue_limits
        if limits.max_requests and self.size >= limits.max_requests:
            raise UnavailableError(
                f"Exceeds maximum queue size of model '{model}', {limits.max_requests}: send fewer requests at once, "
                "or try again later; --max-queue-size allows more, and so does max_queue_size in its config"
            )
        num_before, first_ns = 0, pending.arrived_ns
        for each, waiting in self._levels.items():
            if each <= level:
                num_before += waiting.size
                first_ns = min(first_ns, waiting.in_time[0].arrived_ns) if waiting.in_time else first_ns
        waited_seconds = (pending.arrived_ns - first_ns) / 1e9
        # A new request is refused only if the oldest one has already waited too long. So a burst of requests is
        # accepted, even if all of them together take long.
        if num_before < MIN_WAITING or waited_seconds <= limits.max_seconds:
            return
        seconds = num_before * request_ns() / 1e9 or waited_seconds
        if seconds > limits.max_seconds:
            raise UnavailableError(
                f"Exceeds maximum queue size of model '{model}': {num_before} requests wait, the first of them for "
                f"{waited_seconds:.1f} s, and would go before this one for {seconds:.1f} s, more than "
                f"{limits.max_seconds:g} s: send fewer requests at once, or try again later; --max-queue-secs allows "
                "more, and so does max_queue_size in its config"
            )

    def remove(self, pending: Pending) -> bool:
        """Remove a request.

        Returns:
            whether it was in the queue.
        """
        if not pending.is_waiting:
            return False
        for waiting in self._levels[pending.level]:
            # This search is short, since the request is nearly always the first one. Look before `remove`, since the
            # error of a deque contains what it does not have as a text, and a request's tensors may be large.
            if pending in waiting:
                waiting.remove(pending)
                break
        self._forget(pending)
        return True

    def _forget(self, pending: Pending) -> None:
        pending.is_waiting = False
        self.size -= 1
        if pending.unit is not None:
            self.named[pending.unit] -= 1
            if not self.named[pending.unit]:
                del self.named[pending.unit]
        self._forget_if_empty(pending.level)

    @property
    def has_free(self) -> bool:
        """Whether a request waits that names no unit."""
        return self.size > (self.named.total() if self.named else 0)

    def has_for(self, unit: Unit) -> bool:
        """Whether a waiting request names `unit`, or names no unit."""
        return unit in self.named or self.has_free

    def begin(self, pending: Pending) -> None:
        """Remove a request that runs now. If the policy is fair, and the request overtakes the oldest one of its level,
        its size is added to the size of those that did so before. If it is the oldest one, the sum begins anew at 0. It
        is the same with whole requests that overtake parts, and the oldest part.
        """
        level = self._levels[pending.level]
        if self._policy.is_fair:
            is_oldest = any(waiting and waiting[0] is pending for waiting in level)
            self._num_passed = 0 if is_oldest else self._num_passed + pending.num_elements
        if pending.division is not None:
            self._num_passed_parts = 0
        elif level.parts:
            self._num_passed_parts += pending.num_elements
        self.remove(pending)

    def expire(self, now_ns: int) -> list[Pending]:
        """Apply timeouts: requests with Triton's action DELAY move to the end, those with REJECT are removed.

        Returns:
            the removed requests.
        """
        rejected: list[Pending] = []
        # This runs for each request that arrives. So the queue is searched only if a deadline has passed.
        if not 0 < self._earliest_ns <= now_ns:
            return rejected
        for level, (in_time, parts, delayed) in self._levels.items():
            late = [each for each in chain(in_time, parts) if each.deadline_ns and each.deadline_ns <= now_ns]
            if not late:
                continue
            is_rejecting = self._policy.policy_of(level).timeout_action is TimeoutAction.REJECT
            for pending in late:
                (in_time if pending.division is None else parts).remove(pending)
                if is_rejecting:
                    rejected.append(pending)
                else:
                    delayed.append(pending)
        for pending in rejected:
            self._forget(pending)
        deadlines = (
            each.deadline_ns
            for level in self._levels.values()
            for each in chain(level.in_time, level.parts)
            if each.deadline_ns
        )
        self._earliest_ns = min(deadlines, default=0)
        return rejected

    def _forget_if_empty(self, level: int) -> None:
        # There may be 2^64 levels: drop empty ones, except for the default level.
        if level != self._policy.default_priority_level and not any(self._levels.get(level, ())):
            self._levels.pop(level, None)

    def next_deadline_ns(self) -> int:
        """The earliest deadline, at which `expire` must be called again; 0 if there is none."""
        return self._earliest_ns
