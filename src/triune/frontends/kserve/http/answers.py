"""Status lines and headers of responses that the HTTP connection writes without the ASGI app."""

from http import HTTPStatus

from triune.frontends.access import CHALLENGE
from triune.frontends.kserve.http.statuses import error_body

_STATUS_LINES = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in HTTPStatus}

CONTINUE = _STATUS_LINES[100] + b"\r\n"
LAST_CHUNK = b"0\r\n\r\n"
_ERROR_HEADERS = b"Content-Type: application/json"


def error_headers(status: int, retry_after_seconds: int = 1) -> bytes:
    """The headers that are specific to an error status, `Retry-After` for example."""
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return _ERROR_HEADERS + b"\r\nRetry-After: %d" % retry_after_seconds
    if status == HTTPStatus.UNAUTHORIZED:
        return _ERROR_HEADERS + "".join(f"\r\n{name}: {value}" for name, value in CHALLENGE.items()).encode()
    return _ERROR_HEADERS


class AnswerHeads:
    """Makes the status line and the headers of responses, which together are called the head."""

    def __init__(self) -> None:
        self._common: list[tuple[bytes, bytes]] = []
        self._starts = _STATUS_LINES

    def head(
        self, status: int, common: list[tuple[bytes, bytes]], headers: bytes, num_bytes: int | None, *, keep_alive: bool
    ) -> bytes:
        """Make the head of a response, with the empty line at its end.

        Args:
            status: the HTTP status.
            common: uvicorn's default headers; uvicorn replaces this list every second.
            headers: further headers, without a final line end.
            num_bytes: the body's size; None for a chunked body.
            keep_alive: whether the connection stays open.
        """
        if common is not self._common:
            self._common = common
            lines = b"".join(b"%s: %s\r\n" % header for header in common)
            self._starts = {each: status_line + lines for each, status_line in _STATUS_LINES.items()}
        start = self._starts[status]
        close = b"" if keep_alive else b"Connection: close\r\n"
        if num_bytes is None:
            return b"%s%s\r\nTransfer-Encoding: chunked\r\n%s\r\n" % (start, headers, close)
        return b"%s%s\r\nContent-Length: %d\r\n%s\r\n" % (start, headers, num_bytes, close)

    def error(self, status: int, common: list[tuple[bytes, bytes]], message: str) -> bytes:
        """A whole error response, with `Connection: close`."""
        body = error_body(message)
        return self.head(status, common, error_headers(status), len(body), keep_alive=False) + body
