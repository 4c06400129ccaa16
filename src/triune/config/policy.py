"""Triton's dynamic batcher and queue policies as dataclasses."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class TimeoutAction(Enum):
    """What to do with a request whose queue timeout has passed."""

    REJECT = "REJECT"
    DELAY = "DELAY"


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """Triton's ModelQueuePolicy.

    Attributes:
        timeout_action: what happens to a request after its timeout: REJECT answers UNAVAILABLE; DELAY moves it behind
            all requests that are in time.
        default_timeout_us: how long a request may wait; 0 means forever.
        allow_timeout_override: whether a request's own timeout applies if it is shorter (Triton's rule).
        max_queue_size: the number of requests that may wait; 0 means no limit. Further requests get UNAVAILABLE.
    """

    timeout_action: TimeoutAction = TimeoutAction.REJECT
    default_timeout_us: int = 0
    allow_timeout_override: bool = False
    max_queue_size: int = 0


MIN_WAITING = 64
"""The limit `QueueLimits.max_seconds` refuses no request while at most this number of requests wait. Clients that send
one request at a time rarely exceed this number.
"""


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """The server's queue limits for models whose config sets no `max_queue_size`. Triton has no such limits.

    Attributes:
        max_requests: the number of waiting requests of a model, over all priority levels; 0 means no limit.
        max_seconds: the longest wait. A new request is refused if more than 64 requests (MIN_WAITING) wait, the first
            of them has waited longer than this, and the new request's estimated wait is longer too.
    """

    max_requests: int = 1024
    max_seconds: float = 5.0


NO_LIMITS = QueueLimits(0, math.inf)


@dataclass(frozen=True, slots=True)
class BatchingPolicy:
    """How requests form batches.

    Attributes:
        max_batch_size: the largest number of rows in a batch; 0 means that the model has no batch dimension.
        is_dynamic: whether requests are batched; otherwise each runs alone.
        preferred_batch_sizes: the sizes for which a batch waits, in ascending order.
        max_queue_delay_us: how long the oldest request may wait for a larger batch.
        preserve_ordering: whether responses are sent in the order of their requests.
        num_priority_levels: the number of levels; 0 means one level, and that a request with a priority is an error.
        default_priority_level: the level of a request that names none; 1 is the highest.
        default_queue_policy: the policy of levels that `queue_policies` does not name.
        queue_policies: the policies by priority level.
        queue_limits: the limits for levels whose policies have no max_queue_size.
        ragged_inputs: inputs whose rows may differ in shape; they are padded with zeros at the end of each dimension.
        is_fair: whether small requests may overtake larger ones that wait, but never so often that one waits forever.
    """

    max_batch_size: int = 0
    is_dynamic: bool = False
    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_us: int = 0
    preserve_ordering: bool = False
    num_priority_levels: int = 0
    default_priority_level: int = 0
    default_queue_policy: QueuePolicy = QueuePolicy()
    queue_policies: Mapping[int, QueuePolicy] = field(default_factory=dict[int, QueuePolicy])
    queue_limits: QueueLimits = NO_LIMITS
    ragged_inputs: frozenset[str] = frozenset()
    is_fair: bool = False

    def policy_of(self, level: int) -> QueuePolicy:
        """The queue policy of a priority level."""
        return self.queue_policies.get(level, self.default_queue_policy)
