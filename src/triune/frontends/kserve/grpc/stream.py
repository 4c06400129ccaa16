"""ModelStreamInfer: many concurrent requests on one stream.

As in Triton, a model with one response per request answers in the order of the requests; a decoupled model's
responses are sent as soon as they exist. An error is sent as a message, and the stream continues; if the client sent
the header `triton_grpc_error: true`, the first error ends the stream with its status instead.
Source: Triton's `stream_infer_handler.cc`.
"""

import asyncio
import functools
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import cast

import grpc.aio

from triune.core.errors import CancelledError, TriuneError, UnavailableError
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.frontends.bodies.budget import REQUEST_BYTES, MemoryBudget, Reservation
from triune.frontends.bodies.offload import SMALL_BYTES
from triune.frontends.kserve.grpc import codec as grpc_codec
from triune.frontends.kserve.grpc.large import LargeMessages, decode_small
from triune.frontends.kserve.grpc.parameters import FINAL_RESPONSE
from triune.frontends.kserve.grpc.status import Context, as_triune_error, details_of
from triune.frontends.kserve.large_tensors import memory_bytes
from triune.frontends.kserve.power import in_mode, mode_in
from triune.frontends.limits import Limits
from triune.protos.grpc_service_pb2 import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse
from triune.serving.server import Server

METHOD = "ModelStreamInfer"

# The number of unanswered requests of a stream at which no further one is read.
MAX_PENDING_REQUESTS = 1024

_SLOWEST_BYTES_PER_SECOND = 64 << 10


@dataclass(slots=True)
class _Pending:
    """An unanswered request of the stream.

    Attributes:
        message: the request; it may lack its tensors.
        held: its reservation of memory.
        num_bytes: the size of its message in bytes.
        future: the model's answer; None if the request failed to start, or was answered or withdrawn.
        outcome: the answer or the error; None before it exists, and again from when it begins to be written.
    """

    message: ModelInferRequest
    held: Reservation
    num_bytes: int
    future: asyncio.Future[InferenceResponse] | None = None
    outcome: InferenceResponse | TriuneError | None = None

    def take_outcome(self) -> InferenceResponse:
        """Return the response, or raise the request's error. No reference to either is kept."""
        outcome, self.outcome = self.outcome, None
        if isinstance(outcome, InferenceResponse):
            return outcome
        raise outcome or CancelledError("the request was withdrawn within the server")


class StreamSession:
    """One ModelStreamInfer call, from its first message to its status."""

    def __init__(
        self, server: Server, context: Context, limits: Limits, budget: MemoryBudget, large: LargeMessages
    ) -> None:
        """Args:
        server: answers the requests.
        context: the gRPC call.
        limits: `request_bytes` also limits all requests under way on the stream together; beyond it, the next
            request is not read until one is answered.
        budget: the memory budget.
        large: decodes and encodes large messages.
        """
        self._server = server
        self._context = context
        self._limits = limits
        self._budget = budget
        self._large = large
        self._held: set[Reservation] = set()
        self._mode = mode_in(context.invocation_metadata())
        self._ends_on_error = ("triton_grpc_error", "true") in (context.invocation_metadata() or ())
        self._pending: deque[_Pending] = deque()
        self._decoupled: set[asyncio.Task[None]] = set()
        self._num_pending = 0
        self._pending_bytes = 0
        self._reader: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._is_begun = False
        self._error: TriuneError | None = None
        self._progress = asyncio.Event()
        self._room = asyncio.Event()
        self._writing = asyncio.Lock()

    async def run(self) -> None:
        """Serve the stream until the client has sent its last request, and every request is answered.

        Raises:
            UnavailableError: `stop` was called, and every request that was read is answered.
            TriuneError: the first error, if the client sent `triton_grpc_error: true`.
        """
        try:
            async with asyncio.TaskGroup() as group:
                self._reader = group.create_task(self._read_all(group))
                await self._write_in_order(self._reader)
                if self._error is not None:
                    self._reader.cancel()
                    for task in self._decoupled:
                        task.cancel()
        finally:
            for pending in self._pending:
                if pending.future is not None:
                    pending.future.cancel()
                    pending.future = None
            # Free the requests now: the exception that ends the call refers to this object until the garbage collector
            # runs.
            self._pending.clear()
            for held in self._held:
                held.release()
        if self._error is not None:
            raise self._error
        if self._is_stopping:
            raise UnavailableError("the server is stopping and takes no new requests; open a stream elsewhere")

    def stop(self) -> None:
        """Read no more requests. `run` ends when the requests under way are answered."""
        self._is_stopping = True
        if self._reader is not None:
            self._reader.cancel()

    async def _read_all(self, group: asyncio.TaskGroup) -> None:
        try:
            while not self._is_stopping:
                data = await self._context.read()
                if not isinstance(data, bytes):
                    # `data` is grpc.aio.EOF: the client has sent its last request.
                    return
                await self._start(data, group)
                # Free the message, since the loop below may wait long before it reads the next one.
                del data
                while self._num_pending >= MAX_PENDING_REQUESTS or self._pending_bytes >= self._limits.request_bytes:
                    self._room.clear()
                    await self._room.wait()
        finally:
            self._progress.set()

    async def _start(self, data: bytes, group: asyncio.TaskGroup) -> None:
        held = self._budget.reserve()
        self._held.add(held)
        self._num_pending += 1
        self._pending_bytes += len(data)
        message = ModelInferRequest()
        try:
            held.resize(len(data) + REQUEST_BYTES)
            if len(data) > SMALL_BYTES:
                message, request = await self._large.decode(data, held)
            else:
                message = grpc_codec.parse_request(data)
                request = decode_small(message, self._server)
            if self._server.config(request.model, request.version).is_decoupled:
                is_empty_final_wanted = grpc_codec.is_empty_final_wanted(message)
                task = group.create_task(self._answer_decoupled(message, request, held, is_empty_final_wanted))
                self._decoupled.add(task)
                task.add_done_callback(functools.partial(self._end_decoupled, len(data), held))
                return
            future = self._server.infer(in_mode(request, self._mode))
        except Exception as error:  # noqa: BLE001  (a defect is logged, and answered as one)
            self._pending.append(_Pending(message, held, len(data), outcome=as_triune_error(error, METHOD)))
            self._progress.set()
            return
        pending = _Pending(message, held, len(data), future)
        self._pending.append(pending)
        if future.done():
            self._finish(pending, future)
        else:
            future.add_done_callback(functools.partial(self._finish, pending))

    def _finish(self, pending: _Pending, future: asyncio.Future[InferenceResponse]) -> None:
        """Keep the answer of a request until the answers before it are written. The request's reservation of memory is
        changed to the size of the answer.
        """
        if pending.future is None:
            # The stream has ended: read the exception, so that asyncio does not warn that nobody has read it.
            if not future.cancelled():
                future.exception()
            return
        pending.future = None
        try:
            if future.cancelled():
                pending.outcome = CancelledError("the request was withdrawn within the server")
            else:
                response = future.result()
                pending.held.resize(REQUEST_BYTES + memory_bytes(response.outputs))
                pending.outcome = response
        except Exception as error:  # noqa: BLE001  (a defect is logged, and answered as one)
            pending.outcome = as_triune_error(error, METHOD)
        self._progress.set()

    def _end_decoupled(self, num_bytes: int, held: Reservation, task: asyncio.Task[None]) -> None:
        self._decoupled.discard(task)
        self._end(num_bytes, held)

    def _end(self, num_bytes: int, held: Reservation) -> None:
        held.release()
        self._held.discard(held)
        self._num_pending -= 1
        self._pending_bytes -= num_bytes
        self._room.set()

    async def _write_in_order(self, reader: asyncio.Task[None]) -> None:
        """Write the responses of models with one response per request, in the order of the requests."""
        while self._error is None:
            if self._pending and self._pending[0].outcome is not None:
                pending = self._pending.popleft()
                await self._write_outcome(pending)
                self._end(pending.num_bytes, pending.held)
                # Free the answer, since the wait for the next one may be long.
                del pending
            elif reader.done() and not self._pending:
                return
            else:
                self._progress.clear()
                await self._progress.wait()

    async def _write_outcome(self, pending: _Pending) -> None:
        try:
            answer = await self._large.encode(pending.take_outcome(), pending.held, is_final=True)
        except Exception as error:  # noqa: BLE001  (a defect is logged, and answered as one)
            await self._write_error(pending.message, as_triune_error(error, METHOD))
        else:
            await self._write(answer)

    async def _answer_decoupled(
        self, message: ModelInferRequest, request: InferenceRequest, held: Reservation, is_empty_final_wanted: bool
    ) -> None:
        """Write the responses of a decoupled model as soon as the model returns each."""
        is_final = False
        try:
            responses = cast(AsyncGenerator[InferenceResponse], self._server.stream(request))
            async with aclosing(responses):
                async for response in responses:
                    is_final = response.is_final
                    if response.outputs or not is_final or is_empty_final_wanted:
                        answer = await self._large.encode(response, held, is_final=is_final)
                        # Free the response before its message is written, since writing may take long.
                        del response
                        await self._write(answer)
                        del answer
            if not is_final and is_empty_final_wanted:
                await self._write(ModelStreamInferResponse(infer_response=_header(message)).SerializeToString())
        except Exception as error:  # noqa: BLE001  (a defect is logged, and answered as one)
            await self._write_error(message, as_triune_error(error, METHOD))

    async def _write_error(self, message: ModelInferRequest, error: TriuneError) -> None:
        if not self._ends_on_error:
            answer = ModelStreamInferResponse(error_message=details_of(error), infer_response=_header(message))
            await self._write(answer.SerializeToString())
        elif self._error is None:
            self._error = error
            self._progress.set()

    async def _write(self, message: bytes) -> None:
        # gRPC does not report how much of a message the client has read: allow more time for large messages.
        seconds = self._limits.send_seconds + len(message) / _SLOWEST_BYTES_PER_SECOND
        async with self._writing:
            if self._error is not None:
                return
            try:
                # `asyncio.wait_for` is not used: its frame and its task's error form a reference cycle, which keeps the
                # message in memory.
                async with asyncio.timeout(seconds):
                    if not self._is_begun:
                        # Send the headers separately. If they were sent with the first message and that message is not
                        # read, gRPC would send them again with the status, and fail.
                        await self._context.send_initial_metadata(())
                        self._is_begun = True
                    await self._context.write(message)
            except TimeoutError:
                # End the stream, which releases its memory now, although gRPC sends the status only after the responses
                # in its queue.
                self._error = UnavailableError(f"the client read nothing of its responses for {seconds:g} s")
                self._progress.set()
            except grpc.aio.InternalError:
                # gRPC raises InternalError when the client has disconnected.
                self._error = CancelledError("the client has disconnected")
                self._progress.set()


def _header(message: ModelInferRequest) -> ModelInferResponse:
    """Make an empty final response, with the id, model and version of the request."""
    header = ModelInferResponse(id=message.id, model_name=message.model_name, model_version=message.model_version)
    header.parameters[FINAL_RESPONSE].bool_param = True
    return header
