"""Requests that the app answers: their versions, their bodies, bounded in size; and answers in JSON."""

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from triune.core.errors import NotFoundError, PayloadTooLargeError
from triune.frontends.kserve.compression import Body, decompress
from triune.frontends.kserve.http_codec import parse_json
from triune.frontends.kserve.http_parameters import as_object

# Every number of so many digits is one of 64 bits, as versions are.
_MAX_VERSION_DIGITS = 18


class JsonResponse(Response):
    """A JSON document."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The document as bytes; a bytes value is JSON already."""
        return content if isinstance(content, bytes) else orjson.dumps(content)


def version_of(request: Request) -> int | None:
    """The version that a path names; None if it names none.

    Raises:
        NotFoundError: it is no version's number.
    """
    text: str | None = request.path_params.get("version")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_VERSION_DIGITS):
        shown = text if len(text) <= 32 else f"{text[:32]}... ({len(text)} characters)"
        raise NotFoundError(f"model '{request.path_params['model'][:64]}' has no version '{shown}'")
    return int(text)


async def read_body(request: Request, max_bytes: int) -> Body:
    """A request's body, decompressed.

    Raises:
        PayloadTooLargeError: it has more than `max_bytes`, as it comes or decompressed.
        InvalidArgumentError: it is not what its Content-Encoding says.
        UnsupportedError: its Content-Encoding is unknown.
    """
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > max_bytes:
            raise PayloadTooLargeError(
                f"the request's body has {len(body)} bytes or more; the server's limit is {max_bytes}: "
                "send less at once, or raise --max-request-bytes"
            )
    return decompress(request.headers.get("content-encoding", ""), body, max_bytes)


async def read_object(request: Request, max_bytes: int) -> dict[str, Any]:
    """A request's body as a JSON object; an empty body is an empty object. Raises as `read_body` does."""
    body = await read_body(request, max_bytes)
    return as_object(parse_json(body), "the request") if body else {}
