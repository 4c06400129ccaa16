"""Request heads that came before. A client sends the same one again and again: it need be parsed only once."""

from collections.abc import Mapping
from dataclasses import dataclass

from triune.frontends.kserve.http_infer import Headers, Route

_MAX_HEADS = 1024
_MAX_HEAD_BYTES = 4096
_END = b"\r\n\r\n"
_NOT_PLAIN = (b"transfer-encoding", b"expect", b"upgrade", b"connection")


@dataclass(frozen=True, slots=True)
class Head:
    """What the parser made of a head.

    Attributes:
        route: the inference that it asks for.
        headers: names in lower case.
        num_bytes: its own size.
        body_bytes: the size of the body that follows.
    """

    route: Route
    headers: Headers
    num_bytes: int
    body_bytes: int


class KnownHeads:
    """Heads of plain inferences: a known path, a body of a known size, nothing that touches the connection.

    The same bytes at the beginning of a message always mean the same, so what the parser said of them once holds.
    """

    def __init__(self) -> None:
        self._heads: dict[bytes, Head] = {}

    def find(self, data: bytes) -> Head | None:
        """The head of `data`, if it is known and `data` is one whole request; None says nothing."""
        head = self._heads.get(data[: data.find(_END, 0, _MAX_HEAD_BYTES) + len(_END)])
        return head if head is not None and len(data) == head.num_bytes + head.body_bytes else None

    def learn(self, data: bytes, route: Route, headers: Mapping[bytes, bytes]) -> None:
        """Remember the head of `data`, which was one whole request that the parser understood as told."""
        num_bytes = data.find(_END, 0, _MAX_HEAD_BYTES) + len(_END)
        body_bytes = len(data) - num_bytes
        if num_bytes < len(_END) or headers.get(b"content-length") != b"%d" % body_bytes:
            return
        if any(name in headers for name in _NOT_PLAIN):
            return
        if len(self._heads) >= _MAX_HEADS:
            self._heads.clear()
        self._heads[data[:num_bytes]] = Head(route, dict(headers), num_bytes, body_bytes)
