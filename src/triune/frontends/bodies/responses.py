"""JSON responses."""

from collections.abc import Sequence
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from triune.frontends.bodies.budget import Reservation
from triune.frontends.bodies.compression import pieces


class JsonResponse(Response):
    """A JSON response."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode the content; bytes are sent as they are, since they are JSON already."""
        return content if isinstance(content, bytes) else orjson.dumps(content)


class HeldResponse(JsonResponse):
    """A JSON response that releases its reservation of memory when the client has read it or has disconnected."""

    def __init__(self, content: bytes | Sequence[bytes], held: Reservation) -> None:
        """Args:
        content: the JSON, whole or in parts.
        held: a reservation of the content's size, which this response releases.
        """
        self._parts = [content] if isinstance(content, bytes) else content
        super().__init__(b"", headers={"Content-Length": str(sum(map(len, self._parts)))})
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response, piece by piece, as fast as the client reads it."""
        with self._held:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            for piece in pieces(self._parts):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            # Before it sends this last, empty piece, uvicorn waits until the client has read most of the body.
            await send({"type": "http.response.body", "body": b""})
