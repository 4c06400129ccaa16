"""Decodes and encodes InferParameter. Some parameters control the server and are not passed to the model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from triune.core.errors import InternalError, InvalidArgumentError
from triune.core.requests import Parameter
from triune.protos.grpc_service_pb2 import InferParameter

EMPTY_FINAL_RESPONSE = "triton_enable_empty_final_response"
FINAL_RESPONSE = "triton_final_response"

_MAX_INT64 = 2**63 - 1
_MAX_UINT64 = 2**64 - 1

# For parameters whose type Triton checks: the fields of InferParameter that may hold the value.
_CHOICES = {
    "priority": ("int64_param", "uint64_param"),
    "timeout": ("int64_param", "uint64_param"),
    "sequence_id": ("int64_param", "uint64_param", "string_param"),
    "sequence_start": ("bool_param",),
    "sequence_end": ("bool_param",),
    EMPTY_FINAL_RESPONSE: ("bool_param",),
}


@dataclass(slots=True)
class RequestParameters:
    """A request's parameters, split by purpose.

    Attributes:
        custom: the parameters that are passed to the model.
        priority: 1 is the highest, 0 the model's default.
        timeout_us: how long the request may wait, 0 for the model's default.
    """

    custom: dict[str, Parameter] = field(default_factory=dict[str, Parameter])
    priority: int = 0
    timeout_us: int = 0


def decode_parameters(parameters: Mapping[str, InferParameter]) -> RequestParameters:
    """Split a request's parameters by purpose.

    Raises:
        InvalidArgumentError: a reserved parameter has the wrong type or value, an unknown parameter's name begins with
            `triton_`, or a parameter has no value.
    """
    result = RequestParameters()
    for name, parameter in parameters.items():
        value = decode_parameter(name, parameter)
        if name == "priority":
            result.priority = _count(name, value, _MAX_UINT64)
        elif name == "timeout":
            result.timeout_us = _count(name, value, _MAX_INT64)
        elif name.startswith("triton_") and name != EMPTY_FINAL_RESPONSE:
            raise InvalidArgumentError(
                "parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified: "
                f"'{name}'; only '{EMPTY_FINAL_RESPONSE}' may be"
            )
        elif name != EMPTY_FINAL_RESPONSE:
            result.custom[name] = value
    return result


def decode_parameter(name: str, parameter: InferParameter) -> Parameter:
    """Decode one parameter. Raises InvalidArgumentError if it has no value or not the type that `name` requires."""
    choice = cast("str | None", parameter.WhichOneof("parameter_choice"))
    choices = _CHOICES.get(name)
    if choice is None:
        raise InvalidArgumentError(f"parameter '{name}' has no value; set one field of InferParameter")
    if choices is not None and choice not in choices:
        raise InvalidArgumentError(f"parameter '{name}' came as {choice}; expected {' or '.join(choices)}")
    return cast(Parameter, getattr(parameter, choice))


def encode_parameter(name: str, value: Parameter) -> InferParameter:
    """Encode one parameter of a response.

    Raises:
        InternalError: the value is an integer of more than 64 bits.
    """
    match value:
        case bool():
            return InferParameter(bool_param=value)
        case str():
            return InferParameter(string_param=value)
        case float():
            return InferParameter(double_param=value)
        case int() if -_MAX_INT64 - 1 <= value <= _MAX_INT64:
            return InferParameter(int64_param=value)
        case int() if 0 <= value <= _MAX_UINT64:
            return InferParameter(uint64_param=value)
        case _:
            raise InternalError(f"response parameter '{name}' is {value}, which does not fit into 64 bits")


def _count(name: str, value: Parameter, largest: int) -> int:
    number = int(value)
    if not 0 <= number <= largest:
        raise InvalidArgumentError(f"parameter '{name}' is {number}; it must be between 0 and {largest}")
    return number
