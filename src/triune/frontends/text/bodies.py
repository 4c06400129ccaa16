"""Reads the bodies of requests for text."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from starlette.requests import Request

from triune.core.errors import InvalidArgumentError
from triune.frontends.kserve.body import BodyReader, parse_object
from triune.frontends.kserve.budget import Reservation
from triune.frontends.text.fields import FieldError, Fields, field_of

T = TypeVar("T")


def parse(read: Callable[[Fields], T], body: memoryview) -> T | FieldError:
    """Parse a body. It runs in another process if the body is large. Errors lose what they say of the field if they are
    raised there, and so they are returned.
    """
    try:
        return read(Fields(parse_object(body)))
    except FieldError as error:
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
        TriuneError: as `BodyReader.parse`.
    """
    result = await bodies.parse(request, partial(parse, read), held)
    if isinstance(result, FieldError):
        raise result
    return result
