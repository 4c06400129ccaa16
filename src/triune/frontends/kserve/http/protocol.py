"""The HTTP connection. It answers inference requests itself, without an ASGI framework between socket and tensors.

It extends uvicorn's protocol class, which passes every other request to the ASGI app on the same port. uvicorn does
parsing, TLS, the requests to the app, and graceful shutdown. This module receives requests and enforces the limits on
size and time (`progress`). `paced` passes what arrives to the parser. `ordered` sends the answers in the order of the
requests, if requests of both kinds are pipelined.
"""

import asyncio

import httptools

from triune.core.errors import TriuneError
from triune.frontends.bodies.arriving import ArrivingBody
from triune.frontends.bodies.offload import SMALL_BYTES
from triune.frontends.kserve.http.cycle import InferCycle
from triune.frontends.kserve.http.heads import head_problem, num_head_bytes, target_problem
from triune.frontends.kserve.http.infer import Route, json_bytes
from triune.frontends.kserve.http.paced import PacedProtocol, TooManyHeadersError
from triune.frontends.kserve.http.receiver import DIRECT_BYTES, BodyReceiver
from triune.frontends.kserve.http.statuses import status_of
from triune.frontends.limits import MAX_HEADER_LINES, too_large


class KServeProtocol(PacedProtocol):
    """One HTTP connection."""

    # Large bodies, and timeouts.

    def _receive_directly(self) -> None:
        """Receive the rest of a large body with `BodyReceiver`, which reads into one buffer without the parser."""
        cycle = self._receiving
        if self.is_refused or not isinstance(cycle, InferCycle) or cycle.arriving is not None:
            return
        num_bytes = int(cycle.headers.get(b"content-length", b"0"))
        if num_bytes - len(cycle.received) < DIRECT_BYTES:
            return
        try:
            begun, pacer = cycle.received, self._front_end.pacer
            self._receiver = BodyReceiver(self, pacer, num_bytes, json_bytes(cycle.headers), begun)
        except MemoryError:
            self._refuse(503, f"there is no memory for the {num_bytes} bytes of the request: try again later")
            return
        cycle.received = b""
        self._switch(self._receiver)

    def body_grows(self, num_bytes: int) -> None:
        """Reserve memory for `num_bytes` of a body that have arrived, or refuse the request."""
        cycle = self._receiving
        if self.is_refused or not isinstance(cycle, InferCycle):
            return
        try:
            cycle.hold(self._front_end.budget, num_bytes)
        except TriuneError as error:
            self._refuse(status_of(error), str(error))

    def body_received(self, body: memoryview) -> None:
        """Take over from `BodyReceiver` when the whole body has arrived."""
        self._receiver = None
        self.parser = httptools.HttpRequestParser(self)
        self._switch(self)
        if isinstance(self._receiving, InferCycle):
            self._receiving.received = body
        self.on_message_complete()

    def _switch(self, protocol: asyncio.BaseProtocol) -> None:
        # Stop reading and start again: only when it starts does uvloop choose between data_received and get_buffer.
        if not self.flow.read_paused:
            self.transport.pause_reading()
        self.transport.set_protocol(protocol)
        if not self.flow.read_paused:
            self.transport.resume_reading()

    def check_deadline(self, now: float) -> None:
        """Close the connection if a timeout has passed. Called several times a second with the loop's time."""
        limits = self._front_end.limits
        if self._send_timeout.is_overdue(self.flow.write_paused, self.transport, now):
            self.transport.abort()
        elif self.flow.write_paused:
            return
        elif self._is_receiving and not self.is_refused:
            num_direct = None if self._receiver is None else self._receiver.num_received
            if self._progress.is_late(now, num_direct, is_paused=self.flow.read_paused):
                is_in_head = self._progress.is_in_head
                what = "the request's head took more than" if is_in_head else "nothing of the request came for"
                self._refuse(408, f"{what} {limits.receive_seconds:g} s, the server's limit")
        elif self._order.is_idle and now >= self._deadline:
            self.transport.close()

    # Callbacks of the parser.

    def on_message_begin(self) -> None:
        """Prepare for a request, which begins. uvicorn's cycle for the app is made later, unless it is an inference."""
        self.url = b""
        self.headers = []
        self._is_receiving = True
        self._num_begun += 1
        self._progress.begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header that was parsed; drop a trailer."""
        if self._progress.is_in_head:
            self.headers.append((name.lower(), value))
            if len(self.headers) > MAX_HEADER_LINES:
                raise TooManyHeadersError

    def on_headers_complete(self) -> None:
        """The head was parsed: start an inference, pass the request to the app, or refuse it."""
        parser = self.parser
        if self.is_refused or parser.should_upgrade():
            return
        self._progress.is_in_head = False
        limit = self._front_end.limits.head_bytes
        # Check the size of a head that arrived in one read. `Progress.read` has checked those of several reads.
        if self._num_read_bytes > limit and num_head_bytes(self.url, self.headers) > limit:
            self._refuse_head()
            return
        if (problem := head_problem(self.headers, parser.get_http_version())) is not None:
            self._refuse(*problem)
            return
        hosts = self._front_end.hosts
        if hosts is not None and (refusal := hosts.problem(parser.get_method(), self.headers)) is not None:
            self._refuse(403, refusal)
            return
        route = self._front_end.inferences.routes.find(self.url) if parser.get_method() == b"POST" else None
        if route is not None:
            self._begin(route)
        elif (problem := target_problem(self.url)) is not None:
            self._refuse(*problem)
        else:
            self._hand_to_app()

    def on_chunk_header(self) -> None:
        """Count a chunk of a body, which begins, and refuse a body with too many: each costs as much time as kilobytes
        of data.
        """
        if not self._progress.begin_chunk() and not self.is_refused:
            limit = self._front_end.limits.chunks
            self._refuse(
                413,
                f"Chunked request body exceeds maximum of {limit} non-empty chunks. Send fewer or larger HTTP chunks.",
            )

    def on_body(self, body: bytes) -> None:
        """Append a piece of a body that was parsed, or pass it to uvicorn if the request is for the app."""
        if self.is_refused:
            return
        self._progress.grow()
        cycle = self._receiving
        if not isinstance(cycle, InferCycle):
            super().on_body(body)
            return
        arriving = cycle.arriving
        num_bytes = len(body) + (len(cycle.received) if arriving is None else arriving.num_bytes)
        if num_bytes > self._front_end.limits.request_bytes:
            self._refuse_size(num_bytes)
        elif arriving is None and not cycle.received:
            cycle.received = body
        else:
            self._append(cycle, arriving, body)
        if num_bytes > SMALL_BYTES:
            self.body_grows(num_bytes)

    def _append(self, cycle: InferCycle, arriving: ArrivingBody | None, body: bytes) -> None:
        try:
            if arriving is None:
                arriving = cycle.arriving = ArrivingBody(self._front_end.limits.request_bytes)
                arriving.add(cycle.received)
                cycle.received = b""
            arriving.add(body)
        except MemoryError:
            self._refuse(503, "there is no memory for the request's body: try again later")

    def on_message_complete(self) -> None:
        """Answer a request that has arrived completely, if it is next in order; pass one for the app to uvicorn."""
        if self.is_refused:
            self._refused_arrived()
            return
        if self.parser.should_upgrade():
            return
        self._is_receiving = False
        cycle, self._receiving = self._receiving, None
        if not isinstance(cycle, InferCycle):
            super().on_message_complete()
            return
        cycle.is_received = True
        if cycle.arriving is not None:
            cycle.received, cycle.arriving = cycle.arriving.whole(), None
        if cycle is self._order.running:
            self._answers.answer(cycle)

    def _hand_to_app(self) -> None:
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        for name, value in headers:
            super().on_header(name, value)
        super().on_headers_complete()
        self._receiving = self.cycle
        if self.parser.get_http_version() == "1.0":
            self.cycle.waiting_for_100_continue = False

    def _begin(self, route: Route) -> None:
        parser = self.parser
        headers = dict(self.headers)
        keep_alive = parser.should_keep_alive()
        if keep_alive and b"connection" in headers:
            # Close the connection after an answer to HTTP/1.0: to keep it open needs a header in request and response,
            # which is not supported.
            keep_alive = parser.get_http_version() != "1.0"
        self._receiving = cycle = InferCycle(route, headers, keep_alive)
        cycle.can_stream = parser.get_http_version() != "1.0"
        if b"expect" in headers and cycle.can_stream:
            cycle.waiting_for_100_continue = headers[b"expect"].lower() == b"100-continue"
        if (rule := self._front_end.rule) is not None:
            try:
                rule.check([value for name, value in self.headers if name == rule.header.encode()])
            except TriuneError as error:
                # The body is discarded. `_learn` does not cache the head of a refused request.
                self._refuse(status_of(error), str(error))
                return
        if int(headers.get(b"content-length", b"0")) > self._front_end.limits.request_bytes:
            self._refuse_size(int(headers[b"content-length"]))
        else:
            self._queue(cycle)

    def _refuse_size(self, num_bytes: int) -> None:
        error = too_large(num_bytes, self._front_end.limits.request_bytes)
        self._refuse(status_of(error), str(error))
