"""The statuses of errors in the HTTP APIs for text, and the length to which their messages are cut."""

from triune.core.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    NotFoundError,
    PayloadTooLargeError,
    RestrictedError,
    TriuneError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from triune.frontends.defects import as_internal_error

_MAX_MESSAGE_CHARACTERS = 4096

# Clients retry after any status from 500 on. What is unsupported gets a 4xx status, since a retry would not help.
_STATUSES: dict[type[Exception], int] = {
    PayloadTooLargeError: 413,
    InvalidArgumentError: 400,
    UnsupportedError: 400,
    UnauthenticatedError: 401,
    RestrictedError: 403,
    NotFoundError: 404,
    AlreadyExistsError: 409,
    UnavailableError: 503,
}


def retry_after(error: TriuneError) -> str:
    """The value of the Retry-After header, in seconds, for a server that is too busy."""
    return str(error.retry_after_seconds if isinstance(error, UnavailableError) else 1)


def status_of(error: TriuneError) -> int:
    """The HTTP status of an error, or of the nearest of its base classes that has one; else 500."""
    return next((_STATUSES[kind] for kind in type(error).__mro__ if kind in _STATUSES), 500)


def told(error: Exception) -> TriuneError:
    """The error for the client: `error` itself, or an InternalError for an unexpected exception, which is logged."""
    return error if isinstance(error, TriuneError) else as_internal_error(error)


def message_of(error: TriuneError) -> str:
    """An error's message, which UTF-8 can encode; a very long one is shortened."""
    message = str(error)
    if len(message) > _MAX_MESSAGE_CHARACTERS:
        message = message[:_MAX_MESSAGE_CHARACTERS] + " ..."
    return message.encode(errors="replace").decode()
