"""The weight of a model among models that compete for hardware, from Triton's `instance_group.rate_limiter`."""

from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage


def weight_of(message: ModelConfigMessage) -> float:
    """A model's weight among models that compete for hardware: 1 / priority of its rate limiter; 1 if it has none.

    As in Triton, "a model with priority 2 gets half the scheduling chances of one with priority 1", and priority 0
    means 1. If the instance groups differ, the most urgent priority counts.
    """
    return 1 / min((max(1, each.rate_limiter.priority) for each in message.instance_group), default=1)
