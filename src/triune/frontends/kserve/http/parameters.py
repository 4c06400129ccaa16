"""Checks JSON values and request parameters. Some parameters control the server, others are passed to the model."""

from typing import Any, cast

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.requests import Parameter
from triune.frontends.bodies.json_values import as_bool, json_name, wrong_type
from triune.frontends.kserve.tensors import check_count

_MAX_INT64 = 2**63 - 1
_MAX_UINT64 = 2**64 - 1


def as_count(value: object, what: str, largest: int = _MAX_INT64) -> int:
    """Check that `value` is an integer from 0 to `largest`. Raises InvalidArgumentError."""
    if type(value) is not int:
        raise wrong_type(what, "an integer", value)
    if not 0 <= value <= largest:
        raise InvalidArgumentError(f"{what} is {value}; it must be between 0 and {largest}")
    return value


def as_parameter(value: object, what: str) -> Parameter:
    """Check that `value` can be a parameter. Raises InvalidArgumentError if it is an object, an array or null."""
    if not isinstance(value, (bool, int, float, str)):
        raise InvalidArgumentError(
            f"{what} has invalid type. It must be a string, a number, true or false, not {json_name(value)}"
        )
    return value


def decode_parameter(name: str, value: object) -> Parameter:
    """Check a request's parameter. Reserved parameters must have the type that Triton demands.

    Raises:
        InvalidArgumentError: the type or value is wrong, or the name is reserved and has no meaning over HTTP.
    """
    what = f"parameter '{name}'"
    if name in ("priority", "timeout"):
        return as_count(value, what, _MAX_UINT64 if name == "priority" else _MAX_INT64)
    if name in ("sequence_start", "sequence_end", "binary_data_output"):
        return as_bool(value, what)
    if name == "sequence_id" and type(value) is not str:
        if type(value) is not int or not 0 <= value <= _MAX_UINT64:
            raise InvalidArgumentError(f"{what} must be a string or an integer from 0 to {_MAX_UINT64}")
        return value
    if name.startswith("triton_"):
        raise InvalidArgumentError(
            "parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified: "
            f"'{name[:64]}'"
        )
    return as_parameter(value, what)


def tensor_parameters(item: dict[str, Any], what: str) -> dict[str, Any]:
    """Get the parameters of an input or output.

    Raises:
        InvalidArgumentError: the parameters are not an object.
        PayloadTooLargeError: there are more than a request may have.
        UnsupportedError: a parameter names a shared memory region.
    """
    parameters = item.get("parameters")
    if parameters is None:
        return {}
    if type(parameters) is not dict:
        raise wrong_type(f"'parameters' of {what} '{item['name']}'", "an object", parameters)
    check_count(len(cast("dict[str, Any]", parameters)), f"parameters of {what} '{item['name'][:64]}'")
    if "shared_memory_region" in parameters:
        raise UnsupportedError(
            f"{what} '{item['name']}' names a shared memory region, which this server does not offer; send the data"
        )
    return cast("dict[str, Any]", parameters)
