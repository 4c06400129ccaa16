"""What a client is told of an exception that nobody expected."""

import logging

from triune.core.errors import InternalError

_logger = logging.getLogger(__name__)


def as_internal_error(error: Exception) -> InternalError:
    """Log an unexpected exception and return an InternalError for the client."""
    _logger.error("an HTTP request failed within the server", exc_info=error)
    return defect(error)


def forget_frames(error: BaseException) -> None:
    """Remove the traceback and the causes of an error that a client was told of.

    Their frames refer to the request's body, and some also to the error. Only the garbage collector would free the
    body, which the memory budget does not count any more.
    """
    error.__traceback__ = error.__cause__ = error.__context__ = None


def defect(error: Exception) -> InternalError:
    """Make the InternalError that a client gets for an unexpected exception."""
    return InternalError(f"the request failed within the server: {type(error).__name__}: {error}")
