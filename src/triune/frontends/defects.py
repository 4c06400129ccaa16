"""The error that a client gets when the server has raised an unexpected exception."""

import logging

from triune.core.errors import InternalError

_logger = logging.getLogger(__name__)


def as_internal_error(error: Exception) -> InternalError:
    """Log an unexpected exception and return an InternalError for the client."""
    _logger.error("an HTTP request failed within the server", exc_info=error)
    return defect(error)


def defect(error: Exception) -> InternalError:
    """Make the InternalError that a client gets for an unexpected exception."""
    return InternalError(f"the request failed within the server: {type(error).__name__}: {error}")
