"""Maps Triune's errors to HTTP status codes, as Triton does.

Triton has no special status for a request that is too large; this server answers 413.
"""

import orjson

from triune.core.errors import (
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PayloadTooLargeError,
    RestrictedError,
    TriuneError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)

_STATUSES: dict[type[BaseException], int] = {
    PayloadTooLargeError: 413,
    InvalidArgumentError: 400,
    UnauthenticatedError: 401,
    RestrictedError: 403,
    NotFoundError: 404,
    UnavailableError: 503,
    UnsupportedError: 501,
    InternalError: 500,
}

_DEFAULT_STATUS = 400

# Longer error messages are truncated: they may contain long names that a client sent.
_MAX_MESSAGE_CHARACTERS = 4096


def retry_after(error: TriuneError) -> int:
    """The value of the Retry-After header of a 503, in seconds, at least 1."""
    return error.retry_after_seconds if isinstance(error, UnavailableError) else 1


def status_of(error: TriuneError) -> int:
    """The HTTP status of an error, or of the nearest of its base classes that has one; else 400, as in Triton."""
    for kind in type(error).__mro__:
        if kind in _STATUSES:
            return _STATUSES[kind]
    return _DEFAULT_STATUS


def error_body(message: str) -> bytes:
    """The body of an error response: `{"error": message}`; a very long message is truncated."""
    if len(message) > _MAX_MESSAGE_CHARACTERS:
        message = message[:_MAX_MESSAGE_CHARACTERS] + " ..."
    return orjson.dumps({"error": message.encode(errors="replace").decode()})
