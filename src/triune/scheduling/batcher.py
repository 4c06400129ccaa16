"""The batcher chooses the waiting requests that run next as a batch. It does not remove them from the queue."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from triune.config.policy import BatchingPolicy
from triune.core.datatypes import Array
from triune.core.power import PowerMode
from triune.scheduling.queue import Pending


class FormedBatch(NamedTuple):
    """Requests to run now.

    Attributes:
        pendings: at least one request, all of one group.
        num_rows: their total number of rows.
        num_elements: the total number of elements in their inputs.
    """

    pendings: Sequence[Pending]
    num_rows: int
    num_elements: int

    @classmethod
    def of(cls, pendings: Sequence[Pending], num_rows: int) -> "FormedBatch":
        """Make a batch of `pendings`, which have `num_rows` rows in total."""
        return cls(pendings, num_rows, sum([each.num_elements for each in pendings]))

    def first(self, num_rows: int) -> "FormedBatch":
        """Return a batch of the first requests: as many as have at most `num_rows` rows in total, but at least one."""
        if num_rows >= self.num_rows:
            return self
        total, count = self.pendings[0].call.batch_size, 1
        for pending in self.pendings[1:]:
            if total + pending.call.batch_size > num_rows:
                break
            total += pending.call.batch_size
            count += 1
        return self.of(self.pendings[:count], total)


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """No batch should run before this time, since a larger one may form until then."""

    when_ns: int


class Batcher:
    """The rules of Triton's dynamic batcher; without dynamic batching each request runs alone.

    A batch runs as soon as it has a preferred size, cannot grow, or its oldest request has waited
    `max_queue_delay_us`. Source: Triton's user guide, "Dynamic Batcher".

    Attributes:
        may_split: whether a part of a formed batch may run alone: the policy has no delay, and no preferred sizes but
            `max_batch_size`, which is written into a config that names none.
        is_batching: whether several requests may run as a batch. The dispatcher sets it to False if the outputs of a
            batch cannot be split.
        is_ending: whether no further request will come. The dispatcher sets it to True; batches then do not wait to
            grow.
    """

    def __init__(
        self,
        policy: BatchingPolicy,
        min_delay_us: Callable[[PowerMode | None], int] | None = None,
        max_delay_us: int | None = None,
        max_elements: Callable[[], int] | None = None,
    ) -> None:
        """Args:
        policy: the rules of the config.
        min_delay_us: returns the least time that the oldest request waits in a power mode; None means no such time.
        max_delay_us: the most time that the oldest request waits for a larger batch, regardless of the policy and the
            power mode; None means no limit.
        max_elements: the most elements in a batch of several requests; None means no limit. A request with more than
            half as many is not added to other requests, which would have to wait for it.
        """
        self._policy = policy
        self._max_elements = max_elements
        self._min_delay_us = min_delay_us
        self._max_delay_us = max_delay_us
        self.is_batching = policy.is_dynamic
        self.is_ending = False
        self.may_split = (
            policy.is_dynamic
            and not policy.max_queue_delay_us
            and policy.preferred_batch_sizes in ((), (policy.max_batch_size,))
        )
        self._largest_preferred = max(policy.preferred_batch_sizes, default=policy.max_batch_size)

    def group_of(self, inputs: Mapping[str, Array]) -> object:
        """The group of a request. Requests of equal groups may share a batch.

        Their inputs have the same names and, except for the batch dimension and ragged inputs, the same shapes.
        """
        policy = self._policy
        if not policy.is_dynamic:
            return None
        return tuple(
            (name, array.ndim if name in policy.ragged_inputs else array.shape[1:]) for name, array in inputs.items()
        )

    def form(self, queue: Iterable[Pending], now_ns: int) -> FormedBatch | WaitUntil | None:
        """Choose the next batch.

        While the requests of one group wait for their batch to grow, a batch of another group can run.

        Returns:
            the batch, or the time at which to ask again, or None if no request waits.
        """
        skipped: list[Pending] = []
        decision = self._form(queue, now_ns, skipped)
        if not skipped or not isinstance(decision, WaitUntil):
            return decision
        groups: dict[object, list[Pending]] = {}
        for pending in skipped:
            groups.setdefault(pending.group, []).append(pending)
        for waiting in groups.values():
            other = self._form(waiting, now_ns, [])
            if isinstance(other, FormedBatch):
                return other
            if other is not None and other.when_ns < decision.when_ns:
                decision = other
        return decision

    def _form(self, queue: Iterable[Pending], now_ns: int, skipped: list[Pending]) -> FormedBatch | WaitUntil | None:
        """Choose the next batch from the group of the first waiting request. Requests of other groups that are passed
        over are added to `skipped`.
        """
        policy = self._policy
        preferred, most_rows = policy.preferred_batch_sizes, policy.max_batch_size
        largest = self._largest_preferred
        most_elements = math.inf if self._max_elements is None else self._max_elements()
        chosen: list[Pending] = []
        group: object = None
        num_rows = num_elements = 0
        best: FormedBatch | None = None
        can_grow = True
        oldest_ns = now_ns
        for pending in queue:
            if pending.future.done():
                continue
            if not chosen:
                if not self.is_batching:
                    return FormedBatch((pending,), pending.call.batch_size, pending.num_elements)
                group = pending.group
            elif pending.group != group:
                if policy.preserve_ordering:
                    can_grow = False
                    break
                skipped.append(pending)
                continue
            total = num_rows + pending.call.batch_size
            if total > largest and chosen and best is None:
                # With this request the batch would exceed every preferred size. So the batch before it is the best one
                # so far (as in Triton's `GetDynamicBatch`).
                best = FormedBatch(chosen[:], num_rows, num_elements)
            more = pending.num_elements
            if total > most_rows or (chosen and (num_elements + more > most_elements or 2 * more > most_elements)):
                can_grow = False
                break
            chosen.append(pending)
            num_rows = total
            num_elements += more
            if pending.arrived_ns < oldest_ns:
                oldest_ns = pending.arrived_ns
            if num_rows in preferred:
                best = FormedBatch(chosen[:], num_rows, num_elements)
            if num_rows == most_rows:
                can_grow = False
                break
        if not chosen:
            return None
        delay_us = policy.max_queue_delay_us
        if self._min_delay_us is not None:
            delay_us = max(delay_us, self._min_delay_us(chosen[0].mode))
        if self._max_delay_us is not None:
            delay_us = min(delay_us, self._max_delay_us)
        goes_at_ns = oldest_ns + delay_us * 1000
        is_late = delay_us > 0 and (self.is_ending or now_ns >= goes_at_ns)
        if best is not None and not is_late:
            return best
        if is_late or not can_grow or delay_us == 0 or num_rows >= largest:
            return FormedBatch(chosen, num_rows, num_elements)
        return WaitUntil(goes_at_ns)
