"""Checks the name of a model, which is the name of its folder."""

from triune.core.errors import InvalidArgumentError
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage


def named_copy(given: ModelConfigMessage, name: str) -> ModelConfigMessage:
    """A copy of a config with the name of the model's folder.

    Raises:
        InvalidArgumentError: the config has another name.
    """
    message = ModelConfigMessage()
    message.CopyFrom(given)
    message.name = message.name or name
    if message.name != name:
        raise InvalidArgumentError(
            f"unexpected directory name '{name}' for model '{message.name}', directory name must equal model name"
        )
    return message
