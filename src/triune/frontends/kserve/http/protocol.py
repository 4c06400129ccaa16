"""The HTTP connection. It answers inference requests itself, without an ASGI framework between socket and tensors.

It extends uvicorn's protocol class, which passes every other request to the ASGI app on the same port. uvicorn does
parsing, TLS, the requests to the app, and graceful shutdown. This module does inference, the order of responses if
requests of both kinds are pipelined (`order`), and the limits on size and time.
"""

import asyncio
from functools import partial
from typing import Any, cast

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from triune.core.errors import TriuneError
from triune.frontends.bodies.arriving import ArrivingBody
from triune.frontends.bodies.offload import SMALL_BYTES
from triune.frontends.kserve.http.answering import Answering, FrontEnd
from triune.frontends.kserve.http.answers import CONTINUE
from triune.frontends.kserve.http.cycle import InferCycle
from triune.frontends.kserve.http.heads import Head, head_problem, num_head_bytes, target_problem, without_upgrade
from triune.frontends.kserve.http.infer import Route, json_bytes
from triune.frontends.kserve.http.order import AnswerOrder
from triune.frontends.kserve.http.receiver import DIRECT_BYTES, BodyReceiver
from triune.frontends.kserve.http.statuses import status_of
from triune.frontends.kserve.http.until_close import until_close
from triune.frontends.limits import MAX_HEADER_LINES, too_large
from triune.frontends.send_timeout import SendTimeout

_PACED_BYTES = 2048
"""Larger pieces of data that may belong to a head wait for their turn before they are parsed."""
_PARSE_COST = 8
"""The parser needs about as much time for a byte of a head as it takes to copy this many bytes of a body."""


class _TooManyHeadersError(Exception):
    """A request has too many headers. Raised in a callback of the parser, so that it stops amid the received data."""


class KServeProtocol(HttpToolsProtocol):
    """One HTTP connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        front_end: FrontEnd,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._app: Any = cast(Any, config).loaded_app
        self._front_end = front_end
        self._inferences = front_end.inferences
        self._max_bytes = front_end.limits.request_bytes
        self._order = AnswerOrder(self.pipeline, self._begin_cycle)
        self._receiving: RequestResponseCycle | None = None
        self._receiver: BodyReceiver | None = None
        self._is_receiving = False
        self._is_in_head = False
        self._has_progressed = False
        self._num_silent_bytes = 0
        self._num_read_bytes = 0
        self._num_chunks = 0
        self._num_pieces = 0
        self._num_received: int = 0
        self._receive_deadline = 0.0
        self._send_timeout = SendTimeout(front_end.limits.send_seconds)
        self._deadline = self.loop.time() + front_end.limits.idle_seconds
        self.is_refused = False
        self._answers = Answering(self, front_end)
        self._num_begun = 0
        self._unparsed = b""

    # Callbacks for events of the socket.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection; beyond the limit, answer 503 and close it."""
        super().connection_made(transport)
        limit = self._front_end.limits.connections
        if len(self.connections) > limit:
            self.is_refused = True
            common = self.server_state.default_headers
            message = f"the server has {limit} connections, its limit; close some, or raise --max-connections"
            transport.write(self._front_end.heads.error(503, common, message))
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Handle input: look the head up in the cache, or call the parser.

        Malformed requests are refused, and heads and trailers that are too long.
        """
        is_between = not self._is_receiving and not self.is_refused
        head = self._front_end.known_heads.find(data) if is_between else None
        if head is not None:
            self._repeat(head, data)
            return
        if len(data) > _PACED_BYTES and (is_between or self._is_in_head):
            cost, pacer = _PARSE_COST * len(data), self._front_end.pacer
            if pacer.is_spent:
                self._unparsed = data
                self.pause_body()
                pacer.wait(cost, self._parse_later)
                return
            pacer.spend(cost)
        self._parse(data, is_between=is_between)

    def _parse_later(self) -> None:
        """Parse data that had to wait for its turn, and read on."""
        data, self._unparsed = self._unparsed, b""
        if not self.transport.is_closing():
            self._parse(data, is_between=not self._is_receiving and not self.is_refused)
            self.resume_body()

    def _parse(self, data: bytes, *, is_between: bool) -> None:
        """Feed the parser. `is_between`: no request is being received, so `data` begins with a head."""
        if len(data) > SMALL_BYTES and self._front_end.pacer.spend(len(data)):
            self.pause_body()
            self._front_end.pacer.wait(len(data), self.resume_body)
        whole, num_begun = data, self._num_begun
        self._num_read_bytes = len(data)
        while data and not self.is_refused:
            try:
                self.parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_upgrade() + data[upgrade.args[0] :]
            except httptools.HttpParserError as error:
                if isinstance(error.__context__, _TooManyHeadersError):
                    self._refuse(431, f"the request has more than {MAX_HEADER_LINES} headers, the server's limit")
                else:
                    self._refuse(400, f"the request is not valid HTTP: {error}")
        if self._is_receiving and not self.is_refused:
            # Bytes of requests that ended in this piece of data do not count for the last one, which began in it.
            has_ended = self._num_begun > num_begun + is_between
            self._watch(len(data) - (data.rfind(b"\r\n\r\n") + 4 if has_ended else 0))
            self._receive_directly()
        elif is_between and self._num_begun == num_begun + 1:
            self._learn(whole)

    def _repeat(self, head: Head, data: bytes) -> None:
        """Queue a request that has arrived completely, and whose head is in the cache. The parser does not see it."""
        cycle = InferCycle(head.route, head.headers, keep_alive=True)
        cycle.received = data[head.num_bytes :]
        cycle.is_received = True
        self._queue(cycle)

    def _learn(self, data: bytes) -> None:
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if isinstance(cycle, InferCycle) and cycle.route is not None and cycle.keep_alive and not self.is_refused:
            self._front_end.known_heads.learn(data, cycle.route, cycle.headers)

    def _without_upgrade(self) -> bytes:
        """Make a new parser, and return the head without its header `Upgrade`, in order to parse it again.

        The server supports no upgrade, and the old parser would ignore the body of the request.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            self._refuse(501, "this server is not a proxy: CONNECT is not supported")
            return b""
        self.parser = httptools.HttpRequestParser(self)
        return without_upgrade(method, self.url, version, self.headers)

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

    def pause_body(self) -> None:
        """Stop reading, so that other large bodies can be read first."""
        if not self.flow.read_paused:
            self.transport.pause_reading()

    def resume_body(self) -> None:
        """Continue to read after `pause_body`."""
        if not self.flow.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

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
        # When it starts to read, uvloop chooses between data_received and get_buffer: stop and start reading.
        if not self.flow.read_paused:
            self.transport.pause_reading()
        self.transport.set_protocol(protocol)
        if not self.flow.read_paused:
            self.transport.resume_reading()

    def _watch(self, num_bytes: int) -> None:
        limits = self._front_end.limits
        if not self._receive_deadline:
            self._receive_deadline = self.loop.time() + limits.receive_seconds
        if self._has_progressed:
            self._has_progressed = False
            return
        self._num_silent_bytes += num_bytes
        if self._num_silent_bytes > limits.head_bytes:
            self._refuse_head()

    def _refuse_head(self) -> None:
        limit = self._front_end.limits.head_bytes
        self._refuse(431, f"the request's headers take more than {limit} bytes, the server's limit")

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the request that is being answered.

        If it is a request to the app, the app is told, even if later requests are queued.
        """
        running = self._order.running
        for cycle in (self._receiving, *(waiting for waiting, _ in self.pipeline)):
            if isinstance(cycle, InferCycle) and cycle is not running:
                cycle.release()
        self.pipeline.clear()
        if isinstance(running, InferCycle):
            running.disconnected = True
            if running.future is not None:
                running.future.cancel()
            if not isinstance(running.future, asyncio.Task) or running.future.done():
                # A running task uses the memory until it ends, and releases it then.
                running.release()
            running = None
        self.cycle = running  # pyright: ignore[reportAttributeAccessIssue]: None before the first, in uvicorn too
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        """Finish a response that waited until the transport's write buffer had room."""
        super().resume_writing()
        running = self._order.running
        if isinstance(running, InferCycle):
            self._answers.go_on(running)

    def check_deadline(self, now: float) -> None:
        """Close the connection if a timeout has passed. Called several times a second with the loop's time."""
        limits = self._front_end.limits
        if self._send_timeout.is_overdue(self.flow.write_paused, self.transport, now):
            self.transport.abort()
        elif self.flow.write_paused:
            return
        elif self._is_receiving and not self.is_refused:
            num_received = self._num_pieces if self._receiver is None else self._receiver.num_received
            if num_received != self._num_received or self.flow.read_paused:
                # While the server itself has paused reading, the client is not late.
                self._num_received = num_received
                self._receive_deadline = now + limits.receive_seconds
            elif now >= self._receive_deadline:
                what = "the request's head took more than" if self._is_in_head else "nothing of the request came for"
                self._refuse(408, f"{what} {limits.receive_seconds:g} s, the server's limit")
        elif self._order.is_idle and now >= self._deadline:
            self.transport.close()

    # Callbacks of the parser.

    def on_message_begin(self) -> None:
        """A request begins. uvicorn's cycle for the app is made later, and only if the request is not an inference."""
        self.url = b""
        self.headers = []
        self._is_receiving = True
        self._num_begun += 1
        self._is_in_head = True
        self._num_silent_bytes = 0
        self._num_chunks = -1  # the last is empty
        self._receive_deadline = 0.0

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header was parsed; trailers are dropped."""
        if self._is_in_head:
            self.headers.append((name.lower(), value))
            if len(self.headers) > MAX_HEADER_LINES:
                raise _TooManyHeadersError

    def on_headers_complete(self) -> None:
        """The head was parsed: start an inference, pass the request to the app, or refuse it."""
        parser = self.parser
        if self.is_refused or parser.should_upgrade():
            return
        self._is_in_head = False
        limit = self._front_end.limits.head_bytes
        # If the head arrived in several reads, `_watch` has checked its size.
        if self._num_read_bytes > limit and num_head_bytes(self.url, self.headers) > limit:
            self._refuse_head()
            return
        if (problem := head_problem(self.headers, parser.get_http_version())) is not None:
            self._refuse(*problem)
            return
        route = self._inferences.routes.find(self.url) if parser.get_method() == b"POST" else None
        if route is not None:
            self._begin(route)
        elif (problem := target_problem(self.url)) is not None:
            self._refuse(*problem)
        else:
            self._hand_to_app()

    def on_chunk_header(self) -> None:
        """A chunk of a body begins. Each chunk costs as much time as kilobytes of data, so that their number is
        limited.
        """
        self._num_chunks += 1
        if self._num_chunks > self._front_end.limits.chunks and not self.is_refused:
            limit = self._front_end.limits.chunks
            self._refuse(
                413,
                f"Chunked request body exceeds maximum of {limit} non-empty chunks. Send fewer or larger HTTP chunks.",
            )

    def on_body(self, body: bytes) -> None:
        """A piece of a body was parsed."""
        if self.is_refused:
            return
        self._has_progressed = True
        self._num_pieces += 1
        self._num_silent_bytes = 0
        cycle = self._receiving
        if not isinstance(cycle, InferCycle):
            super().on_body(body)
            return
        arriving = cycle.arriving
        num_bytes = len(body) + (len(cycle.received) if arriving is None else arriving.num_bytes)
        if num_bytes > self._max_bytes:
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
                arriving = cycle.arriving = ArrivingBody(self._max_bytes)
                arriving.add(cycle.received)
                cycle.received = b""
            arriving.add(body)
        except MemoryError:
            self._refuse(503, "there is no memory for the request's body: try again later")

    def on_message_complete(self) -> None:
        """A request has arrived completely."""
        if self.is_refused or self.parser.should_upgrade():
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
            # With HTTP/1.0, keep-alive needs a header in request and response, which is not supported.
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
        if int(headers.get(b"content-length", b"0")) > self._max_bytes:
            self._refuse_size(int(headers[b"content-length"]))
        else:
            self._queue(cycle)

    def _refuse_size(self, num_bytes: int) -> None:
        error = too_large(num_bytes, self._max_bytes)
        self._refuse(status_of(error), str(error))

    # The order of requests.

    def _queue(self, cycle: InferCycle) -> None:
        self.cycle = cycle
        if self._order.add(cycle, self._app):
            self.flow.pause_reading()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._order.start(cycle, app)

    def _begin_cycle(self, cycle: RequestResponseCycle, app: Any) -> None:
        if not isinstance(cycle, InferCycle):
            is_old = cycle.scope["http_version"] == "1.0"
            super()._start_asgi_task(cycle, partial(until_close, cycle, app) if is_old else app)
        elif cycle.is_received:
            self._answers.answer(cycle)
        elif cycle.waiting_for_100_continue:
            self.transport.write(CONTINUE)

    def on_response_complete(self) -> None:
        """A response was sent: start the next queued request, or start the idle timeout."""
        self.server_state.total_requests += 1
        if self.transport.is_closing() or not self._order.go_on():
            return
        if self.flow.read_paused and not self.pipeline:
            self.flow.resume_reading()
        limits = self._front_end.limits
        self._deadline = self.loop.time() + (limits.linger_seconds if self.is_refused else limits.idle_seconds)

    # Refusals.

    def _refuse(self, status: int, message: str) -> None:
        """Answer with an error, after the requests before it, then close the connection. Further input is discarded."""
        if self.is_refused:
            return
        self.is_refused = True
        if self._receiver is not None:
            self._receiver.drop()
        cycle = self._receiving
        if not isinstance(cycle, InferCycle):
            if cycle is not None and cycle is self._order.running:
                self._take_from_app(cycle, status, message)
                return
            if cycle is not None:
                # The request is still queued, so that the app has not seen it.
                self.pipeline.popleft()
            cycle = InferCycle(None, {}, keep_alive=False)
        cycle.refusal = (status, message)
        cycle.keep_alive = False
        cycle.received, cycle.arriving = b"", None
        cycle.release()
        cycle.is_received = True
        if cycle is self._order.running:
            self._answers.answer(cycle)
        elif cycle is not self.cycle:
            self._queue(cycle)

    def _take_from_app(self, cycle: RequestResponseCycle, status: int, message: str) -> None:
        """Refuse a request that the app has started to answer. The app is told that the client has disconnected."""
        if not cycle.response_started:
            common = self.server_state.default_headers
            self.transport.write(self._front_end.heads.error(status, common, message))
        cycle.disconnected = True
        cycle.message_event.set()
        self.transport.close()
