"""The sending side of an HTTP connection: requests are answered in the order in which they arrived, or refused.

It extends uvicorn's protocol class, which answers requests to the ASGI app, and shuts down gracefully. `protocol`
receives the requests.
"""

import asyncio
from functools import partial
from typing import Any, cast

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from triune.frontends.kserve.http.answering import Answering, FrontEnd
from triune.frontends.kserve.http.answers import CONTINUE
from triune.frontends.kserve.http.cycle import InferCycle
from triune.frontends.kserve.http.order import AnswerOrder
from triune.frontends.kserve.http.receiver import BodyReceiver
from triune.frontends.kserve.http.until_close import until_close
from triune.frontends.send_timeout import SendTimeout


class OrderedProtocol(HttpToolsProtocol):
    """One HTTP connection, without the parsing of its requests.

    Attributes:
        is_refused: whether the server has refused a request on the connection. It then discards all further input.
    """

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
        self._order = AnswerOrder(self.pipeline, self._begin_cycle)
        self._receiving: RequestResponseCycle | None = None
        self._receiver: BodyReceiver | None = None
        self._send_timeout = SendTimeout(front_end.limits.send_seconds)
        self._deadline = self.loop.time() + front_end.limits.idle_seconds
        self.is_refused = False
        self._is_refused_whole = False
        self._answers = Answering(self, front_end)

    # The methods below are callbacks for events of the socket.

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

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the request that is being answered.

        If it is a request to the app, the app is notified, even if later requests are queued.
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
                # Release the request's memory, unless a task still uses it: the task releases it when it ends.
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

    def pause_body(self) -> None:
        """Stop reading, so that other large bodies can be read first."""
        if not self.flow.read_paused:
            self.transport.pause_reading()

    def resume_body(self) -> None:
        """Continue to read after `pause_body`."""
        if not self.flow.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    # The methods below queue requests, so that they are answered in order.

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
            self._read_on()
        if self.is_refused and self._is_refused_whole:
            self.transport.close()
            return
        limits = self._front_end.limits
        self._deadline = self.loop.time() + (limits.linger_seconds if self.is_refused else limits.idle_seconds)

    def _read_on(self) -> None:
        """Read more requests: those that have arrived are answered, or being answered."""
        self.flow.resume_reading()

    # The methods below refuse requests.

    def _refused_arrived(self) -> None:
        """Called when the refused request has arrived completely: close the connection if all answers are sent. The
        client sends nothing any more, so it does not lose the last answer.
        """
        self._is_refused_whole = True
        if self._order.is_idle:
            self.transport.close()

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
                # Remove the request from the queue before the app sees it.
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
        """Refuse a request that was passed to the app already. The app sees that the client has disconnected."""
        if not cycle.response_started:
            common = self.server_state.default_headers
            self.transport.write(self._front_end.heads.error(status, common, message))
        cycle.disconnected = True
        cycle.message_event.set()
        self.transport.close()
