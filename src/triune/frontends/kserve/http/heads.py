"""Check request heads (the request line and headers), and cache parsed heads, so that each is parsed only once."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import unquote_to_bytes

import httptools

from triune.frontends.kserve.http.infer import Headers, Route

_MAX_HEADS = 1024
_MAX_HEAD_BYTES = 4096
_NOT_UTF8 = "the request's target %s is not UTF-8 when its percent signs are decoded; send a name's bytes in UTF-8"
_END = b"\r\n\r\n"
_NOT_PLAIN = (b"transfer-encoding", b"expect", b"upgrade", b"connection")


def head_problem(headers: Sequence[tuple[bytes, bytes]], version: str) -> tuple[int, str] | None:
    """Find errors that the parser accepts but HTTP/1.1 forbids. Source: RFC 9112, sections 3.2 and 6.1.

    Args:
        headers: the headers, with names in lower case.
        version: the HTTP version, "1.1" for example.

    Returns:
        the status and message to refuse the request with; None if the head is valid.
    """
    num_hosts = 0
    for name, value in headers:
        if name == b"host":
            num_hosts += 1
        elif name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            coding = value[:64].decode("latin-1")
            return 501, f"transfer coding '{coding}' is not supported; send the body as it is, or chunked"
    if num_hosts > 1 or (num_hosts == 0 and version == "1.1"):
        return 400, f"the request is not valid HTTP: it has {num_hosts} Host headers, where HTTP/1.1 has one"
    return None


def target_problem(url: bytes) -> tuple[int, str] | None:
    """Find errors in a request's target, which must have a path. Returns what `head_problem` returns.

    Args:
        url: the target in the request line.
    """
    with contextlib.suppress(httptools.HttpParserInvalidURLError):
        # Correct the type: the path may be None, which the type stub does not say.
        path = cast("bytes | None", httptools.parse_url(url).path)
        if path is not None and path.isascii():
            return None if _is_utf8(unquote_to_bytes(path)) else (400, _NOT_UTF8 % ascii(url[:64].decode("latin-1")))
    shown = ascii(url[:64].decode("latin-1"))
    return 400, f"the request is not valid HTTP: its target {shown} is not a URL with a path; send a path, such as /v2"


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Head:
    """A parsed head of an inference request.

    Attributes:
        route: the model and version.
        headers: the headers, with names in lower case.
        num_bytes: the head's size.
        body_bytes: the size of the body that follows.
    """

    route: Route
    headers: Headers
    num_bytes: int
    body_bytes: int


class KnownHeads:
    """A cache of parsed heads of simple inference requests: with a Content-Length, and without headers such as Upgrade.

    Equal bytes always have equal results, so that a head need not be parsed again.
    """

    def __init__(self) -> None:
        self._heads: dict[bytes, Head] = {}

    def find(self, data: bytes) -> Head | None:
        """The head of `data`, if it is in the cache and `data` is exactly one request; else None."""
        head = self._heads.get(data[: data.find(_END, 0, _MAX_HEAD_BYTES) + len(_END)])
        return head if head is not None and len(data) == head.num_bytes + head.body_bytes else None

    def learn(self, data: bytes, route: Route, headers: Mapping[bytes, bytes]) -> None:
        """Add the head of `data`, which is exactly one request that was parsed to `route` and `headers`."""
        num_bytes = data.find(_END, 0, _MAX_HEAD_BYTES) + len(_END)
        body_bytes = len(data) - num_bytes
        if num_bytes < len(_END) or headers.get(b"content-length") != b"%d" % body_bytes:
            return
        if any(name in headers for name in _NOT_PLAIN):
            return
        if len(self._heads) >= _MAX_HEADS:
            self._heads.clear()
        self._heads[data[:num_bytes]] = Head(route, dict(headers), num_bytes, body_bytes)


def without_upgrade(method: bytes, url: bytes, version: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Write a head again without its header `Upgrade`, which the server supports for no protocol."""
    lines = [b"%s %s HTTP/%s" % (method, url, version)]
    for name, value in headers:
        if name == b"connection":
            value = b"close" if b"close" in value.lower() else b"keep-alive"
        if name != b"upgrade":
            lines.append(b"%s: %s" % (name, value))
    return b"\r\n".join(lines) + b"\r\n\r\n"


def num_head_bytes(url: bytes, headers: Iterable[tuple[bytes, bytes]]) -> int:
    """The size of the request line, without the method, and of the headers."""
    return len(url) + sum(len(name) + len(value) + len(b": \r\n") for name, value in headers)
