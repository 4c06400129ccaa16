"""Reads the bodies of requests for text."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar, cast

from starlette.requests import Request

from triune.core.errors import InvalidArgumentError, PayloadTooLargeError
from triune.frontends.bodies.budget import Reservation
from triune.frontends.bodies.reader import BodyReader, parse_object
from triune.frontends.text.fields import FieldError, Fields, field_of

T = TypeVar("T")

MAX_VALUES: Final = 20_000
"""The most values in a request's JSON. Receiving the parsed values from another process and freeing them each block the
event loop for a millisecond or two with this many values.
"""

MAX_DEPTH: Final = 200
"""How deep the arrays and objects of a request may be nested. orjson encodes at most 254 levels."""

_NUMBERS_PER_VALUE: Final = 16
"""This many numbers count as one value against MAX_VALUES, since prompts may be long lists of token ids."""


def parse(read: Callable[[Fields], T], body: memoryview) -> T | InvalidArgumentError:
    """Parse a body; this runs in another process if the body is large. An InvalidArgumentError is returned, not raised:
    between processes, a raised error would lose the name of the field.
    """
    try:
        document = parse_object(body)
        _check_size(document)
        return read(Fields(document))
    except (FieldError, PayloadTooLargeError) as error:
        return error
    except InvalidArgumentError as error:
        return FieldError(str(error), field_of(error))


async def read_body(bodies: BodyReader, request: Request, read: Callable[[Fields], T], held: Reservation) -> T:
    """Read a request's body within the limits.

    Args:
        bodies: the reader.
        request: the request.
        read: reads the fields; it and its result must be picklable.
        held: the request's reservation, which is changed to the body's size.

    Raises:
        FieldError: a field is wrong.
        InvalidArgumentError: the body is not JSON, or is nested too deep.
        PayloadTooLargeError: the body has too many bytes, or too many values.
        TriuneError: as `BodyReader.parse`.
    """
    result = await bodies.parse(request, partial(parse, read), held)
    if isinstance(result, InvalidArgumentError):
        raise result
    return result


def _check_size(document: dict[str, Any]) -> None:
    """Raise PayloadTooLargeError if a document has more than MAX_VALUES values, or InvalidArgumentError if it is nested
    deeper than MAX_DEPTH.
    """
    left = MAX_VALUES * _NUMBERS_PER_VALUE
    level: list[Any] = [document]
    for _ in range(MAX_DEPTH):
        deeper: list[Any] = []
        for each in level:
            values = cast("dict[str, Any]", each).values() if isinstance(each, dict) else cast("list[Any]", each)
            for value in values:
                left -= 1 if isinstance(value, (int, float)) else _NUMBERS_PER_VALUE
                if isinstance(value, (dict, list)):
                    deeper.append(value)
            if left < 0:
                raise PayloadTooLargeError(
                    f"the request's JSON has too many values: {MAX_VALUES} are the limit, or "
                    f"{MAX_VALUES * _NUMBERS_PER_VALUE} numbers; send several requests"
                )
        level = deeper
        if not level:
            return
    raise InvalidArgumentError(f"the request's JSON is nested too deep: {MAX_DEPTH} levels are the limit; send it flat")
