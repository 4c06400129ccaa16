"""A request's JSON as Python's values: strict, with what Triton's parser takes beyond the standard.

Triton parses with RapidJSON's `kParseNanAndInfFlag`: NaN, Inf and Infinity, with a sign or without, are numbers
(`triton_json.h`). A key that an object has twice is refused: of the two values RapidJSON takes the first, most other
parsers the last, and nobody means both.
"""

import json
import re
from typing import Any, cast

import orjson

from triune.core.errors import InvalidArgumentError
from triune.frontends.kserve.compression import Body

# A string, which is passed over whole, or a number that is none. Nothing is tried twice (possessive quantifiers, and a
# string may lack its end), or a string of megabytes would take gigabytes, and broken ones hours.
_NOT_FINITE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|-?(?:NaN|Inf(?:inity)?)', re.DOTALL)
_AS_PYTHON_SPELLS = {b"-NaN": b"NaN", b"Inf": b"Infinity", b"-Inf": b"-Infinity"}
_MAX_DIGITS = len(str(-(2**63)))


class RepeatedKeyError(InvalidArgumentError):
    """An object of a request's JSON has a key twice."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the request's JSON has the key '{key[:64]}' twice in one object")
        self.key = key


def parse_json(body: Body) -> object:
    """The JSON value in `body`.

    Raises:
        InvalidArgumentError: there is none, or an object has a key twice.
    """
    value = parse_repeating(body)
    if type(value) is not dict:
        return value
    document = cast("dict[str, Any]", value)
    refuse_repeats(body, _num_keys(document))
    return document


def parse_repeating(body: Body) -> object:
    """As `parse_json`, but the caller counts the keys, and calls `refuse_repeats`: that is quicker."""
    try:
        return cast(object, orjson.loads(body))
    except orjson.JSONDecodeError as error:
        return _parse_not_finite(bytes(body), error)


def refuse_repeats(body: Body, num_keys: int) -> None:
    """Raise InvalidArgumentError if valid JSON with `num_keys` different keys in all, or more, has a key twice."""
    text = body if type(body) is bytes else bytes(body)
    # Each key has a colon. Most requests have no others, and most of the rest none that looks like a key's.
    if text.count(b":") != num_keys and _most_keys(text) != num_keys:
        # A key twice, or strings that look like keys: Python's parser tells which, and takes its time.
        _load(text)


def _parse_not_finite(body: bytes, error: orjson.JSONDecodeError) -> object:
    """The value of JSON with NaN or infinities in it; `error` if it is wrong otherwise."""
    refusal = InvalidArgumentError(f"the request's body is not valid JSON: {error}")
    if b"NaN" not in body and b"Inf" not in body:
        raise refusal
    try:
        # Python's parser lets more pass than orjson does: what is left without those numbers has to please both.
        orjson.loads(_NOT_FINITE.sub(lambda match: match[0] if match[0][:1] == b'"' else b"0", body))
    except orjson.JSONDecodeError:
        raise refusal from None
    return _load(body)


def _load(body: bytes) -> object:
    spelt = _NOT_FINITE.sub(lambda match: _AS_PYTHON_SPELLS.get(match[0], match[0]), body)
    try:
        return json.loads(spelt.decode(), object_pairs_hook=_refuse_repeats, parse_int=_whole_number)
    except RecursionError:
        raise InvalidArgumentError("the request's body is not valid JSON: it is nested too deep") from None


def _whole_number(text: str) -> int | float:
    # As orjson has it.
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
    """No fewer keys than the JSON has: each ends in a quote, perhaps blanks, and a colon."""
    return text.count(b'":') + sum(text.count(each) for each in (b" :", b"\n:", b"\t:", b"\r:"))


def _num_keys(value: dict[str, Any]) -> int:
    """The keys of an object and of those in it; of arrays, those that begin with an object."""
    count = len(value)
    for each in value.values():
        if type(each) is list:
            items = cast("list[Any]", each)
            if items and type(items[0]) is dict:
                for item in items:
                    if type(item) is dict:
                        count += _num_keys(cast("dict[str, Any]", item))
        elif type(each) is dict:
            count += _num_keys(cast("dict[str, Any]", each))
    return count
