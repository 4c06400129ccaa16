"""Parse the JSON of a request strictly, but with the extensions of Triton's parser.

Triton parses with RapidJSON's `kParseNanAndInfFlag`: NaN, Inf and Infinity, with or without a sign, are numbers
(`triton_json.h`). An object with a duplicate key is refused, since RapidJSON takes the first value and most other
parsers take the last.
"""

import json
import re
from typing import Any, cast

import orjson

from triune.core.errors import InvalidArgumentError
from triune.frontends.bodies.compression import Body

# Matches a string, which is skipped, or NaN or an infinity. The quantifiers are possessive and the closing quote is
# optional, so that the match never backtracks. Otherwise a long string would take gigabytes, and a malformed one hours.
_NOT_FINITE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|-?(?:NaN|Inf(?:inity)?)', re.DOTALL)
_AS_PYTHON_SPELLS = {b"-NaN": b"NaN", b"Inf": b"Infinity", b"-Inf": b"-Infinity"}
_MAX_DIGITS = len(str(-(2**63)))


class RepeatedKeyError(InvalidArgumentError):
    """An object in a request's JSON has a duplicate key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the request's JSON has the key '{key[:64]}' twice in one object")
        self.key = key


def parse_json(body: Body) -> object:
    """Parse JSON.

    Raises:
        InvalidArgumentError: the body is not valid JSON, or an object has a duplicate key.
    """
    value = parse_repeating(body)
    if type(value) is not dict:
        return value
    document = cast("dict[str, Any]", value)
    refuse_repeats(body, _num_keys(document))
    return document


def parse_repeating(body: Body) -> object:
    """Parse JSON as `parse_json` does, but without the check for duplicate keys.

    The caller must count the keys, and call `refuse_repeats`.
    """
    try:
        return cast(object, orjson.loads(body))
    except orjson.JSONDecodeError as error:
        return _parse_not_finite(bytes(body), error)


def refuse_repeats(body: Body, num_keys: int) -> None:
    """Raise InvalidArgumentError if an object has a duplicate key.

    Args:
        body: valid JSON.
        num_keys: the number of keys after parsing, which merges duplicates.
    """
    text = body if type(body) is bytes else bytes(body)
    # Search for duplicates only if the numbers differ. The number of colons is an upper bound for the number of keys,
    # and in most requests they are equal.
    if text.count(b":") != num_keys and _most_keys(text) != num_keys:
        # There is a duplicate key, or a string that looks like a key. Parse again with Python's parser, which is
        # slower, but reports duplicates.
        _load(text)


def _parse_not_finite(body: bytes, error: orjson.JSONDecodeError) -> object:
    """Parse JSON that contains NaN or infinities. If it is invalid otherwise, raise the error."""
    if b"NaN" not in body and b"Inf" not in body:
        raise _refusal(error, error)
    try:
        # Python's parser is less strict than orjson: check the rest of the JSON with orjson.
        orjson.loads(_NOT_FINITE.sub(lambda match: match[0] if match[0][:1] == b'"' else b"0", body))
    except orjson.JSONDecodeError as other:
        raise _refusal(error, other) from None
    return _load(body)


def _load(body: bytes) -> object:
    spelt = _NOT_FINITE.sub(lambda match: _AS_PYTHON_SPELLS.get(match[0], match[0]), body)
    try:
        return json.loads(spelt.decode(), object_pairs_hook=_refuse_repeats, parse_int=_integer)
    except RecursionError:
        raise _too_deep() from None


def _refusal(first: orjson.JSONDecodeError, last: orjson.JSONDecodeError) -> InvalidArgumentError:
    """The error for a body that is not valid JSON. `first` is the error of parsing the body as it is; `last` is that
    of parsing it with 0 in place of NaN and infinities.
    """
    if "depth limit" in last.msg:
        return _too_deep()
    return InvalidArgumentError(f"the request's body is not valid JSON: {first}")


def _too_deep() -> InvalidArgumentError:
    # No depth is named in the message: two parsers read JSON, and the limit of one depends on Python's stack.
    return InvalidArgumentError(
        "the request's JSON is nested too deep: about 1,000 levels of arrays and objects are the limit; send it flat"
    )


def _integer(text: str) -> int | float:
    # Integers beyond 64 bits become floats, as in orjson.
    number = int(text) if len(text) <= _MAX_DIGITS else 2**64
    return number if -(2**63) <= number < 2**64 else float(text)


def _refuse_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise RepeatedKeyError(name)
            seen.add(name)
    return result


def _most_keys(text: bytes) -> int:
    """An upper bound of the number of keys in JSON: the number of colons that follow a quote or a blank."""
    return text.count(b'":') + sum(text.count(each) for each in (b" :", b"\n:", b"\t:", b"\r:"))


def _num_keys(value: dict[str, Any]) -> int:
    """The number of keys in an object and in the objects in it. An array is searched only if
    its first element is an object.
    """
    count = 0
    objects = [value]
    # This is a loop, since the nesting may be deeper than Python's recursion limit.
    while objects:
        each = objects.pop()
        count += len(each)
        for member in each.values():
            if type(member) is dict:
                objects.append(cast("dict[str, Any]", member))
            elif type(member) is list:
                items = cast("list[Any]", member)
                if items and type(items[0]) is dict:
                    objects += [item for item in items if type(item) is dict]
    return count
