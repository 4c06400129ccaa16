"""Check the types of parsed JSON values, and name them in messages."""

from typing import Any, cast

from triune.core.errors import InvalidArgumentError

_JSON_NAMES: dict[type, str] = {
    bool: "true or false",
    dict: "an object",
    float: "a number with a fraction, an exponent or more than 64 bits",
    int: "an integer",
    list: "an array",
    str: "a string",
    type(None): "null",
}


def json_name(value: object) -> str:
    """The JSON type of a parsed value, for messages: "a string", "null"."""
    return _JSON_NAMES[type(value)]


def wrong_type(what: str, wanted: str, value: object) -> InvalidArgumentError:
    """Make the error which says that `what` must be `wanted`, and not the type of `value`."""
    return InvalidArgumentError(f"{what} must be {wanted}, not {json_name(value)}")


def as_object(value: object, what: str) -> dict[str, Any]:
    """Check that `value` is a JSON object. Otherwise raise InvalidArgumentError, which calls it `what`."""
    if type(value) is not dict:
        raise wrong_type(what, "an object", value)
    return cast("dict[str, Any]", value)


def as_array(value: object, what: str) -> list[Any]:
    """Check that `value` is a JSON array. Raises InvalidArgumentError."""
    if type(value) is not list:
        raise wrong_type(what, "an array", value)
    return cast("list[Any]", value)


def as_string(value: object, what: str) -> str:
    """Check that `value` is a string. Raises InvalidArgumentError."""
    if type(value) is not str:
        raise wrong_type(what, "a string", value)
    return value


def as_bool(value: object, what: str) -> bool:
    """Check that `value` is a boolean. Raises InvalidArgumentError."""
    if type(value) is not bool:
        raise wrong_type(what, "true or false", value)
    return value
