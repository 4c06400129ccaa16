"""The receiving side of an HTTP connection, up to the parser: which data are parsed, and when.

A client may send thousands of requests at once, or heads of many kilobytes: of one connection's pipelined requests only
the next is parsed before the answer to an earlier one, and large heads wait for their turn.
"""

from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from triune.frontends.bodies.offload import SMALL_BYTES
from triune.frontends.kserve.http.answering import FrontEnd
from triune.frontends.kserve.http.cycle import InferCycle
from triune.frontends.kserve.http.heads import Head, without_upgrade
from triune.frontends.kserve.http.ordered import OrderedProtocol
from triune.frontends.kserve.http.progress import Progress
from triune.frontends.limits import MAX_HEADER_LINES

_PACED_BYTES = 2048
"""Larger pieces of data that may belong to a head wait for their turn before they are parsed."""
_PARSE_COST = 8
"""The parser needs about as much time for a byte of a head as it takes to copy this many bytes of a body."""

_END_OF_HEAD = b"\r\n\r\n"
_HEAD_BYTES = 1024
_BODY_BYTES = 4096
"""The largest pieces of data that are parsed before the parser's state is looked at: of data without the end of a head,
and of a body whose length is not known.
"""


class TooManyHeadersError(Exception):
    """A request has too many headers. Raised in a callback of the parser, so that it stops amid the received data."""


class PacedProtocol(OrderedProtocol):
    """One HTTP connection, without the callbacks of the parser."""

    def __init__(self, *uvicorns: Any, front_end: FrontEnd, **others: Any) -> None:
        """`uvicorns` and `others` are the arguments of uvicorn's protocol class."""
        super().__init__(*uvicorns, front_end=front_end, **others)
        self._progress = Progress(front_end.limits)
        self._is_receiving = False
        self._num_read_bytes = 0
        self._num_begun = 0
        self._unparsed = b""

    def _receive_directly(self) -> None:
        """Receive the rest of a large body without the parser."""

    def data_received(self, data: bytes) -> None:
        """Handle input: look the head up in the cache, or call the parser.

        Malformed requests are refused, as are heads and trailers that are too long.
        """
        is_between = not self._is_receiving and not self.is_refused
        head = self._front_end.known_heads.find(data) if is_between else None
        if head is not None:
            self._repeat(head, data)
            return
        if len(data) > _PACED_BYTES and (is_between or self._progress.is_in_head):
            cost, pacer = _PARSE_COST * len(data), self._front_end.pacer
            if pacer.is_spent:
                self._unparsed = data
                self.pause_body()
                pacer.wait(cost, self._parse_later)
                return
            pacer.spend(cost)
        if len(data) > SMALL_BYTES and self._front_end.pacer.spend(len(data)):
            self.pause_body()
            self._front_end.pacer.wait(len(data), self.resume_body)
        self._parse(data, is_between=is_between)

    def _parse_later(self) -> None:
        """Parse data that had to wait for its turn, and read on."""
        data, self._unparsed = self._unparsed, b""
        if not self.transport.is_closing():
            self._parse(data, is_between=not self._is_receiving and not self.is_refused)
            self.resume_body()

    def _read_on(self) -> None:
        """Parse the pipelined requests that arrived with those that are answered now, or else read more. The loop
        serves other connections before.
        """
        if self._unparsed:
            self.loop.call_soon(self._parse_held)
        else:
            super()._read_on()

    def _parse_held(self) -> None:
        if not (self.pipeline or self.transport.is_closing()):
            self._parse_later()
            if not (self._unparsed or self.pipeline):
                super()._read_on()

    def _parse(self, data: bytes, *, is_between: bool) -> None:
        """Pass data to the parser. `is_between`: no request is being received, so `data` begins with a head."""
        whole, num_begun, at = data, self._num_begun, 0
        self._num_read_bytes = len(data)
        while at < len(data):
            if self.pipeline and not self.is_refused:
                # A request waits for the answer to another: parse no more of them before, since a client may send
                # thousands at once, and leave.
                self._unparsed, data = data[at:], data[:at]
                break
            end = self._end_of_piece(data, at)
            try:
                self.parser.feed_data(data if end - at == len(data) else memoryview(data)[at:end])
                at = end
            except httptools.HttpParserUpgrade as upgrade:
                data, at = self._without_upgrade() + data[at + upgrade.args[0] :], 0
            except httptools.HttpParserError as error:
                if isinstance(error.__context__, TooManyHeadersError):
                    self._refuse(431, f"the request has more than {MAX_HEADER_LINES} headers, the server's limit")
                else:
                    self._refuse(400, f"the request is not valid HTTP: {error}")
                break
        if self._is_receiving and not self.is_refused:
            # `data` may hold the ends of earlier requests: count only the bytes of the last request that begins in it.
            has_ended = self._num_begun > num_begun + is_between
            num_bytes = len(data) - (data.rfind(_END_OF_HEAD) + len(_END_OF_HEAD) if has_ended else 0)
            if not self._progress.read(num_bytes, self.loop.time()):
                self._refuse_head()
            if not self._unparsed:
                self._receive_directly()
        elif is_between and self._num_begun == num_begun + 1 and not self._unparsed:
            self._learn(whole)

    def _end_of_piece(self, data: bytes, at: int) -> int:
        """Where the piece of `data` ends that is parsed next. It begins at `at`, and has at most one head, or a part of
        a body. What follows a refused request is one piece, since the parser's callbacks ignore it.
        """
        if self.is_refused:
            return len(data)
        if self._is_receiving and not self._progress.is_in_head:
            cycle, num_bytes = self._receiving, _BODY_BYTES
            if isinstance(cycle, InferCycle) and b"content-length" in cycle.headers:
                num_received = len(cycle.received) if cycle.arriving is None else cycle.arriving.num_bytes
                num_bytes = max(1, int(cycle.headers[b"content-length"]) - num_received)
            return min(at + num_bytes, len(data))
        found = data.find(_END_OF_HEAD, at)
        return found + len(_END_OF_HEAD) if found >= 0 else min(at + _HEAD_BYTES, len(data))

    def _repeat(self, head: Head, data: bytes) -> None:
        """Queue a request that has arrived completely, and whose head is in the cache. The parser does not see it."""
        cycle = InferCycle(head.route, head.headers)
        cycle.received = data[head.num_bytes :]
        cycle.is_received = True
        self._queue(cycle)

    def _learn(self, data: bytes) -> None:
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if isinstance(cycle, InferCycle) and cycle.route is not None and cycle.keep_alive and not self.is_refused:
            self._front_end.known_heads.learn(data, cycle.route, cycle.headers)

    def _without_upgrade(self) -> bytes:
        """Create a new parser, and return what it must parse: the request's head without the header `Upgrade`.

        The server supports no upgrade, and the old parser would ignore the body of the request.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            self._refuse(501, "this server is not a proxy: CONNECT is not supported")
            return b""
        self.parser = httptools.HttpRequestParser(self)
        return without_upgrade(method, self.url, version, self.headers)

    def _refuse_head(self) -> None:
        limit = self._front_end.limits.head_bytes
        self._refuse(431, f"the request's headers take more than {limit} bytes, the server's limit")
