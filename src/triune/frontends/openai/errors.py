"""Errors in the form of OpenAI's API: `{"error": {"message", "type", "param", "code"}}`."""

from typing import Any, Final

import orjson
from starlette.responses import Response

from triune.core.errors import PayloadTooLargeError, TriuneError, UnauthenticatedError, UnsupportedError
from triune.frontends.access import CHALLENGE
from triune.frontends.bodies.responses import JsonResponse
from triune.frontends.text.chat import ContextLengthError
from triune.frontends.text.errors import message_of, retry_after, status_of, told
from triune.frontends.text.fields import FieldError, field_of
from triune.frontends.text.models import UnknownModelError

_CODES: Final[dict[type[TriuneError], str]] = {
    UnknownModelError: "model_not_found",
    ContextLengthError: "context_length_exceeded",
    UnauthenticatedError: "invalid_api_key",
    UnsupportedError: "unsupported",
    PayloadTooLargeError: "request_too_large",
}
_TYPES: Final = {403: "permission_error", 500: "server_error", 503: "service_unavailable_error"}


def answer_error(error: Exception) -> Response:
    """Make the response to an error."""
    known = told(error)
    status = status_of(known)
    headers: dict[str, str] = {}
    if status == 503:
        headers["Retry-After"] = retry_after(known)
    elif status == 401:
        headers |= CHALLENGE
    return JsonResponse({"error": error_object(known)}, status_code=status, headers=headers)


def error_event(error: Exception) -> bytes:
    """Create the event for an error that occurs after the answer has begun. Clients raise it as an exception."""
    return b"data: %s\n\n" % orjson.dumps({"error": error_object(told(error))})


def error_object(error: TriuneError) -> dict[str, Any]:
    """OpenAI's error object for an error: message, type, param and code."""
    code = error.code if isinstance(error, FieldError) else _CODES.get(type(error))
    param = "model" if isinstance(error, UnknownModelError) else field_of(error)
    kind = _TYPES.get(status_of(error), "invalid_request_error")
    return {"message": message_of(error), "type": kind, "param": param or None, "code": code}
