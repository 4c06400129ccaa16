"""Conversion between datatypes and their names in Triton's config: TYPE_FP32, but TYPE_STRING for BYTES."""

from triune.core.datatypes import DataType
from triune.core.errors import InvalidArgumentError
from triune.protos.model_config_pb2 import DataType as DataTypeMessage

_TO_CONFIG = {
    each: DataTypeMessage.TYPE_STRING if each is DataType.BYTES else DataTypeMessage.Value(f"TYPE_{each.value}")
    for each in DataType
}
_FROM_CONFIG = {number: each for each, number in _TO_CONFIG.items()}


def to_config(datatype: DataType) -> DataTypeMessage:
    """The enum value in the config for a datatype."""
    return _TO_CONFIG[datatype]  # pyright: ignore[reportReturnType]  (enumerators are ints in protobuf's stubs)


def from_config(number: int, what: str) -> DataType:
    """The datatype for an enum value in the config.

    Args:
        number: the enum value.
        what: what the error message calls the tensor.

    Raises:
        InvalidArgumentError: the value is unset or unknown.
    """
    if number == DataTypeMessage.TYPE_INVALID:
        raise InvalidArgumentError(f"{what} must specify 'data_type'")
    try:
        return _FROM_CONFIG[number]
    except KeyError:
        raise InvalidArgumentError(f"{what} has data_type {number}, which is not the datatype of a tensor") from None
