"""How much of shared hardware a model gets, by Triton's `instance_group.rate_limiter`."""

from triune.core.errors import InvalidArgumentError
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage

_MAX_PRIORITY = 1000


def weight_of(message: ModelConfigMessage) -> float:
    """A model's weight among those that compete for hardware: 1 / priority of its rate limiter; 1 if it has none.

    As in Triton, "a model with priority 2 gets half the scheduling chances of one with priority 1", and 0 is 1. If the
    instance groups differ, the most urgent one counts.

    Raises:
        InvalidArgumentError: the priority is above 1,000.
    """
    priorities = [max(1, each.rate_limiter.priority) for each in message.instance_group]
    priority = min(priorities, default=1)
    if priority > _MAX_PRIORITY:
        raise InvalidArgumentError(
            f"model '{message.name}': the rate limiter's priority is {priority}; give one of 1 (the most urgent) to "
            f"{_MAX_PRIORITY}"
        )
    return 1 / priority
