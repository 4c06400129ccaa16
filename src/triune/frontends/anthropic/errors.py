"""Errors in the form of Anthropic's API: `{"type": "error", "error": {"type", "message"}}`."""

from typing import Any, Final

import orjson
from starlette.responses import Response

from triune.core.errors import TriuneError
from triune.frontends.access import CHALLENGE
from triune.frontends.bodies.responses import JsonResponse
from triune.frontends.text.chat import ContextLengthError
from triune.frontends.text.errors import message_of, retry_after, status_of, told

_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    503: "overloaded_error",
}
_OVERLOADED: Final = 529
"""Anthropic's status for a server that is too busy."""


def answer_error(error: Exception) -> Response:
    """Make the response to an error."""
    known = told(error)
    status = status_of(known)
    headers: dict[str, str] = {}
    if status == 503:
        status, headers["Retry-After"] = _OVERLOADED, retry_after(known)
    elif status == 401:
        headers |= CHALLENGE
    return JsonResponse(_error_document(known), status_code=status, headers=headers)


def error_event(error: Exception) -> bytes:
    """Make the event for an error that occurs after the answer has begun. Clients raise it as an exception."""
    return b"event: error\ndata: %s\n\n" % orjson.dumps(_error_document(told(error)))


def _error_document(error: TriuneError) -> dict[str, Any]:
    message = message_of(error)
    if isinstance(error, ContextLengthError):
        # Clients recognise the error by this text.
        message = f"prompt is too long: {error.num_tokens} tokens > {error.context_tokens - 1} maximum"
    return {"type": "error", "error": {"type": _TYPES.get(status_of(error), "api_error"), "message": message}}
