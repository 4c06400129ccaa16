"""Responses to clients of HTTP/1.0, which has no chunked encoding: a response without Content-Length ends with the
connection.

Source: RFC 9112, sections 6.1 and 6.3.
"""

from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


async def until_close(
    cycle: RequestResponseCycle,
    app: ASGI3Application,
    scope: Scope,
    receive: ASGIReceiveCallable,
    send: ASGISendCallable,
) -> None:
    """Run an ASGI app, and close the connection after a response without Content-Length, instead of sending chunks.

    Args:
        cycle: the request; uvicorn closes the connection after each one of HTTP/1.0.
        app: the app.
        scope: the request, as ASGI passes it.
        receive: receives its body.
        send: sends the response.
    """
    is_sized = True

    async def send_plain(event: ASGISendEvent) -> None:
        nonlocal is_sized
        if event["type"] == "http.response.start":
            is_sized = any(name.lower() == b"content-length" for name, _ in event.get("headers", ()))
            if not is_sized:
                # Without chunks, uvicorn expects a body of a known length: `expected_content_length`, which is set to
                # the size of each piece before the piece is sent.
                cycle.chunked_encoding = False
        elif event["type"] == "http.response.body" and not is_sized:
            cycle.expected_content_length = len(event.get("body", b""))
        await send(event)

    await app(scope, receive, send_plain)
