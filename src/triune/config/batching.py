"""The config's `dynamic_batching`, checked and translated to a `BatchingPolicy`."""

import logging

from triune.config.policy import BatchingPolicy, QueuePolicy, TimeoutAction
from triune.core.errors import InvalidArgumentError
from triune.core.tensors import Rows
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.protos.model_config_pb2 import ModelDynamicBatching, ModelQueuePolicy

_log = logging.getLogger(__name__)

_WHY_ONE_BY_ONE = {
    Rows.BY_VALUES: "the values of its inputs decide how many rows its outputs have",
    Rows.OTHER: "the first dimension of an output is by its operators a constant, or another dimension of the inputs "
    "than their first, though the file or the config says otherwise",
}


def translate_batching(message: ModelConfigMessage, rows: Rows) -> BatchingPolicy:
    """Translate a completed config to its batching policy.

    Requests are not batched if an output has another number of rows than the inputs: it would be unknown which request
    a row belongs to.

    Args:
        message: the config.
        rows: whether the model's first dimension is a batch dimension.

    Raises:
        InvalidArgumentError: a value is out of range, or fields contradict each other (Triton's rules).
    """
    if message.max_batch_size < 0:
        raise InvalidArgumentError(
            f"'max_batch_size' must be non-negative value for {message.name}, found {message.max_batch_size}"
        )
    ragged = frozenset(each.name for each in message.input if each.allow_ragged_batch)
    if not message.HasField("dynamic_batching"):
        return BatchingPolicy(max_batch_size=message.max_batch_size, ragged_inputs=ragged)
    batching = message.dynamic_batching
    _check(batching, message.name, message.max_batch_size)
    if rows in _WHY_ONE_BY_ONE and message.max_batch_size > 0:
        _log.warning(
            "model '%s': its requests run one by one, whatever dynamic_batching says: %s",
            message.name,
            _WHY_ONE_BY_ONE[rows],
        )
    return BatchingPolicy(
        max_batch_size=message.max_batch_size,
        # Without a batch dimension, requests cannot be batched. The queue policy still applies.
        is_dynamic=message.max_batch_size > 0 and rows not in _WHY_ONE_BY_ONE,
        preferred_batch_sizes=tuple(sorted(set(batching.preferred_batch_size))),
        max_queue_delay_us=batching.max_queue_delay_microseconds,
        preserve_ordering=batching.preserve_ordering,
        num_priority_levels=batching.priority_levels,
        default_priority_level=batching.default_priority_level,
        default_queue_policy=_queue_policy(batching.default_queue_policy),
        queue_policies={level: _queue_policy(policy) for level, policy in batching.priority_queue_policy.items()},
        ragged_inputs=ragged,
    )


def _queue_policy(policy: ModelQueuePolicy) -> QueuePolicy:
    is_delay = policy.timeout_action == ModelQueuePolicy.DELAY
    return QueuePolicy(
        timeout_action=TimeoutAction.DELAY if is_delay else TimeoutAction.REJECT,
        default_timeout_us=policy.default_timeout_microseconds,
        allow_timeout_override=policy.allow_timeout_override,
        max_queue_size=policy.max_queue_size,
    )


def _check(batching: ModelDynamicBatching, name: str, max_batch_size: int) -> None:
    for size in batching.preferred_batch_size:
        if size <= 0:
            raise InvalidArgumentError(f"dynamic batching preferred size must be positive for {name}, found {size}")
        if size > max_batch_size:
            raise InvalidArgumentError(
                f"dynamic batching preferred size must be <= max batch size for {name}: {size} > {max_batch_size}"
            )
    levels = batching.priority_levels
    if levels:
        if not 1 <= batching.default_priority_level <= levels:
            raise InvalidArgumentError(
                f"default priority level must be in range [1, {levels}] for {name}, "
                f"found {batching.default_priority_level}"
            )
        for level in batching.priority_queue_policy:
            if not 1 <= level <= levels:
                raise InvalidArgumentError(
                    f"priority queue policy must have priority level in range [1, {levels}] for {name}, found {level}"
                )
    elif batching.default_priority_level or batching.priority_queue_policy:
        raise InvalidArgumentError(
            f"priorities are configured for {name}, but priority_levels is 0; set it to the number of levels"
        )
    if batching.preserve_ordering:
        if levels > 1:
            raise InvalidArgumentError(
                f"Only one priority level is allowed when 'preserve_ordering' is true for {name}, found {levels}"
            )
        for policy in (batching.default_queue_policy, *batching.priority_queue_policy.values()):
            if policy.default_timeout_microseconds and policy.timeout_action == ModelQueuePolicy.DELAY:
                raise InvalidArgumentError(
                    f"Queue policy can not have DELAY as timeout action when 'preserve_ordering' is true for {name}"
                )
