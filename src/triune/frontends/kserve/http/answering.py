"""Answer the inference requests of an HTTP connection: small ones directly, large ones in an asyncio task."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from functools import partial
from typing import Any, Protocol, cast

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

from triune.core.errors import TriuneError, forget_frames
from triune.core.requests import InferenceResponse
from triune.frontends.access import Rule
from triune.frontends.bodies.budget import REQUEST_BYTES, MemoryBudget
from triune.frontends.bodies.compression import Body, pieces
from triune.frontends.bodies.offload import NUM_FREED, SMALL_BYTES
from triune.frontends.bodies.pacing import Pacer
from triune.frontends.defects import as_internal_error
from triune.frontends.hosts import OwnHosts
from triune.frontends.kserve.http.answers import LAST_CHUNK, AnswerHeads, error_headers
from triune.frontends.kserve.http.cycle import InferCycle
from triune.frontends.kserve.http.heads import KnownHeads
from triune.frontends.kserve.http.infer import (
    InferEndpoint,
    Route,
    is_quick,
    is_quick_answer,
    result_of,
)
from triune.frontends.kserve.http.large_inferences import LargeInferences
from triune.frontends.kserve.http.statuses import error_body, retry_after, status_of
from triune.frontends.kserve.large_tensors import memory_bytes
from triune.frontends.limits import Limits
from triune.serving.server import Server

# Below this size, concatenating the parts and writing them at once is faster than writing each part.
_JOIN_BYTES = 65536
# Up to this size, a response is written to the socket in one call.
_WRITE_BYTES = 1 << 20


class FrontEnd:
    """The objects that all connections of an HTTP server share.

    Attributes:
        rule: the access rule for inference; None if everybody may use it.
        hosts: the names by which requests may call the server; None for any.
    """

    def __init__(
        self,
        server: Server,
        limits: Limits,
        budget: MemoryBudget,
        large: LargeInferences,
        rule: Rule | None = None,
        hosts: OwnHosts | None = None,
    ) -> None:
        self.inferences = InferEndpoint(server)
        self.large = large
        self.heads = AnswerHeads()
        self.known_heads = KnownHeads()
        self.limits = limits
        self.budget = budget
        self.pacer = Pacer()
        self.rule = rule
        self.hosts = hosts


class Connection(Protocol):
    """The connection whose requests are answered.

    Attributes:
        is_refused: whether the server has refused a request on it, and so discards all further input.
    """

    transport: asyncio.Transport
    flow: FlowControl
    loop: asyncio.AbstractEventLoop
    tasks: set[asyncio.Task[None]]
    server_state: ServerState
    is_refused: bool

    def on_response_complete(self) -> None:
        """Called when a response has been sent."""
        ...


class Answering:
    """Answers the inference requests of one connection."""

    def __init__(self, connection: Connection, front_end: FrontEnd) -> None:
        self._connection = connection
        self._front_end = front_end
        self._is_draining = False

    def answer(self, cycle: InferCycle) -> None:
        """Answer a request that has arrived completely and is next in order, or send its refusal."""
        if cycle.refusal is not None or cycle.route is None:
            self._write_error(cycle, *(cycle.refusal or (500, "the request was lost within the server")))
            return
        body, cycle.received = cycle.received, b""
        if (len(body) > SMALL_BYTES or b"content-encoding" in cycle.headers) and not is_quick(cycle.headers, body):
            self._run(cycle, self._answer_large(cycle, cycle.route, body))
            return
        try:
            future, cycle.form = self._front_end.inferences.start(cycle.route, cycle.headers, body)
            if future.done():
                self._write_response(cycle, future)
                return
            try:
                cycle.hold(self._front_end.budget, len(body) + REQUEST_BYTES)
            except TriuneError:
                future.cancel()
                raise
        except TriuneError as error:
            self._write_failure(cycle, error)
            return
        cycle.future = future
        future.add_done_callback(partial(self._write_response, cycle))

    def _write_response(self, cycle: InferCycle, future: asyncio.Future[InferenceResponse]) -> None:
        if cycle.disconnected or self._connection.transport.is_closing():
            if not future.cancelled():
                # Read the exception, so that asyncio does not warn that nobody has read it.
                future.exception()
            if cycle.disconnected:
                # The inference may have been a task, which used the request's memory until now.
                cycle.release()
            return
        try:
            response = result_of(future)
            if not is_quick_answer(response, cycle.form, cycle.headers):
                self._run(cycle, self._write_large(cycle, response))
                return
            headers, parts = self._front_end.inferences.finish(response, cycle.form, cycle.headers)
            self._write(cycle, 200, headers, parts)
        except TriuneError as error:
            self._write_failure(cycle, error)

    def go_on(self, cycle: InferCycle) -> None:
        """Finish the response that waited for room in the transport's write buffer. Called when there is room again."""
        if self._is_draining:
            self._is_draining = False
            self._finish(cycle)

    # The methods below write responses that take more than one iteration of the event loop.

    def _run(self, cycle: InferCycle, work: Coroutine[Any, Any, None]) -> None:
        cycle.future = task = self._connection.loop.create_task(work)
        # uvicorn waits for these tasks when it stops.
        self._connection.tasks.add(task)
        task.add_done_callback(partial(self._end, cycle))

    def _end(self, cycle: InferCycle, task: asyncio.Task[None]) -> None:
        """Called when a task has ended for any reason, even if it was cancelled before it started: free what the task
        kept in memory. If it has failed, log the error and close the connection.
        """
        self._connection.tasks.discard(task)
        if cycle.future is task:
            # The exception of a cancelled task refers to its frames, which refer to the response: drop the reference to
            # the task.
            cycle.future = None
        if cycle.disconnected:
            cycle.release()
        if not task.cancelled() and (defect := task.exception()) is not None:
            as_internal_error(cast(Exception, defect))
            self._connection.transport.abort()

    async def _answer_large(self, cycle: InferCycle, route: Route, body: Body) -> None:
        budget = self._front_end.budget
        try:
            held = cycle.hold(budget, len(body) + REQUEST_BYTES)
            future, cycle.form = await self._front_end.large.start(route, cycle.headers, body, held)
            del body
            try:
                await asyncio.wait([future])
            finally:
                future.cancel()
            # Write in another task. Otherwise this frame would keep the outputs in memory after they are encoded.
            self._run(cycle, self._write_large(cycle, result_of(future)))
        except TriuneError as error:
            self._write_failure(cycle, error)
        finally:
            future = None

    async def _write_large(self, cycle: InferCycle, response: InferenceResponse) -> None:
        large, budget = self._front_end.large, self._front_end.budget
        try:
            held = cycle.hold(budget, memory_bytes(response.outputs) + REQUEST_BYTES)
            headers, parts = await large.finish(response, cycle.form, held)
            del response
            held.resize(sum(map(len, parts)) + REQUEST_BYTES)
            encoding = await large.encoding_of(cycle.headers, parts)
            if encoding == "identity":
                self._write(cycle, 200, headers, parts)
                return
            headers += b"\r\nContent-Encoding: " + encoding.encode()
            compressed = large.compress(encoding, parts)
            if cycle.can_stream:
                await self._stream(cycle, headers, compressed)
            else:
                packed: list[bytes | memoryview] = []
                async for piece in compressed:
                    held.grow(len(piece))
                    packed.append(piece)
                self._write(cycle, 200, headers, packed)
        except TriuneError as error:
            self._write_failure(cycle, error)

    async def _stream(self, cycle: InferCycle, headers: bytes, compressed: AsyncIterator[bytes]) -> None:
        common = self._connection.server_state.default_headers
        self._connection.transport.write(
            self._front_end.heads.head(200, common, headers, None, keep_alive=cycle.keep_alive)
        )
        async for piece in compressed:
            if self._connection.flow.write_paused:
                await self._connection.flow.drain()
            if cycle.disconnected or self._connection.transport.is_closing():
                return
            self._connection.transport.writelines([b"%x\r\n" % len(piece), piece, b"\r\n"])
        self._connection.transport.write(LAST_CHUNK)
        self._finish(cycle)

    def _write_failure(self, cycle: InferCycle, error: TriuneError) -> None:
        forget_frames(error)
        if not cycle.disconnected:
            self._write_error(cycle, status_of(error), str(error), retry_after(error))

    def _write_error(self, cycle: InferCycle, status: int, message: str, retry_after_seconds: int = 1) -> None:
        self._write(cycle, status, error_headers(status, retry_after_seconds), [error_body(message)])

    def _write(self, cycle: InferCycle, status: int, headers: bytes, parts: list[bytes | memoryview]) -> None:
        num_bytes = 0
        for part in parts:
            num_bytes += len(part)
        common = self._connection.server_state.default_headers
        head = self._front_end.heads.head(status, common, headers, num_bytes, keep_alive=cycle.keep_alive)
        if num_bytes <= _JOIN_BYTES:
            self._connection.transport.write(b"".join((head, *parts)))
        else:
            parts.insert(0, head)
            cycle.hold(self._front_end.budget, num_bytes)
            if num_bytes > _WRITE_BYTES:
                self._run(cycle, self._write_slowly(cycle, parts))
                return
            self._connection.transport.writelines(parts)
        self._finish(cycle)

    async def _write_slowly(self, cycle: InferCycle, parts: list[bytes | memoryview]) -> None:
        """Write a large response piece by piece. `Pacer` limits all large bodies together."""
        parts.reverse()
        # Free each piece after writing it. If the client disconnects, free the other pieces in steps: freeing 1 GB at
        # once takes 0.1 s.
        try:
            while parts:
                for piece in pieces([parts.pop()]):
                    if self._connection.flow.write_paused:
                        await self._connection.flow.drain()
                    if cycle.disconnected or self._connection.transport.is_closing():
                        return
                    await self._front_end.pacer.pace(len(piece))
                    self._connection.transport.write(piece)
        finally:
            while parts:
                del parts[-NUM_FREED:]
                await asyncio.sleep(0)
        self._finish(cycle)

    def _finish(self, cycle: InferCycle) -> None:
        if self._connection.flow.write_paused and not self._connection.transport.is_closing():
            # The response counts as finished when the client has read most of it. The next response waits until then.
            self._is_draining = True
            return
        cycle.response_complete = True
        if cycle.held is not None:
            cycle.release()
        if not cycle.keep_alive and not self._connection.is_refused:
            self._connection.transport.close()
        self._connection.on_response_complete()
