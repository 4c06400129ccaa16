"""ModelStreamInfer: many requests at once on one stream.

As in Triton: a model with one response per request answers in the order of the requests, whatever each takes; a
decoupled model's responses go out as they come. An error is a message on the stream, which goes on; a client that
sends the header `triton_grpc_error: true` asks for the stream to end with the first error's status instead.
Source: Triton's `stream_infer_handler.cc`.
"""

import asyncio
import functools
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import cast

from triune.core.errors import CancelledError, TriuneError, UnavailableError
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.frontends.kserve import grpc_codec
from triune.frontends.kserve.grpc_parameters import FINAL_RESPONSE
from triune.frontends.kserve.grpc_status import Context, as_triune_error, details_of
from triune.protos.grpc_service_pb2 import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse
from triune.serving.server import Server

METHOD = "ModelStreamInfer"

# Requests of one stream that may wait for their answers before the next is read.
MAX_PENDING_REQUESTS = 1024


@dataclass(slots=True)
class _Pending:
    """A request whose response waits for its turn: the answer to come, or the error that kept it from starting."""

    message: ModelInferRequest
    outcome: asyncio.Future[InferenceResponse] | TriuneError
    num_bytes: int

    def is_done(self) -> bool:
        return isinstance(self.outcome, TriuneError) or self.outcome.done()

    def result(self) -> InferenceResponse:
        """The answer of a request that is done. Raises its error."""
        if isinstance(self.outcome, TriuneError):
            raise self.outcome
        if self.outcome.cancelled():
            raise CancelledError("the request was withdrawn within the server")
        return self.outcome.result()


class StreamSession:
    """One stream, from its first message to its status."""

    def __init__(self, server: Server, context: Context, *, max_pending_bytes: int) -> None:
        """Args:
        server: answers the requests.
        context: the call.
        max_pending_bytes: once the requests under way have this many bytes, the next waits until one is answered.
        """
        self._server = server
        self._context = context
        self._max_pending_bytes = max_pending_bytes
        self._ends_on_error = ("triton_grpc_error", "true") in (context.invocation_metadata() or ())
        self._pending: deque[_Pending] = deque()
        self._decoupled: set[asyncio.Task[None]] = set()
        self._num_pending = 0
        self._pending_bytes = 0
        self._reader: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._error: TriuneError | None = None
        self._progress = asyncio.Event()
        self._room = asyncio.Event()
        self._writing = asyncio.Lock()

    async def run(self) -> None:
        """Serve the stream until the client has sent its last request and has all its answers.

        Raises:
            UnavailableError: `stop` was called; every request that was read has its answer.
            TriuneError: the first error, if the client asked for that.
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
                if isinstance(pending.outcome, asyncio.Future):
                    pending.outcome.cancel()
        if self._error is not None:
            raise self._error
        if self._is_stopping:
            raise UnavailableError("the server is stopping and takes no new requests; open a stream elsewhere")

    def stop(self) -> None:
        """Read nothing more; `run` ends once the requests under way have their answers."""
        self._is_stopping = True
        if self._reader is not None:
            self._reader.cancel()

    async def _read_all(self, group: asyncio.TaskGroup) -> None:
        try:
            while not self._is_stopping:
                data = await self._context.read()
                if not isinstance(data, bytes):  # grpc.aio.EOF: the client has sent its last request
                    return
                self._start(data, group)
                while self._num_pending >= MAX_PENDING_REQUESTS or self._pending_bytes >= self._max_pending_bytes:
                    self._room.clear()
                    await self._room.wait()
        finally:
            self._progress.set()

    def _start(self, data: bytes, group: asyncio.TaskGroup) -> None:
        self._num_pending += 1
        self._pending_bytes += len(data)
        message = ModelInferRequest()
        outcome: asyncio.Future[InferenceResponse] | TriuneError
        try:
            message = grpc_codec.parse_request(data)
            request = grpc_codec.decode_request(message)
            if self._server.config(request.model, request.version).is_decoupled:
                is_empty_final_wanted = grpc_codec.is_empty_final_wanted(message)
                task = group.create_task(self._answer_decoupled(message, request, is_empty_final_wanted))
                self._decoupled.add(task)
                task.add_done_callback(functools.partial(self._end_decoupled, len(data)))
                return
            outcome = self._server.infer(request)
            outcome.add_done_callback(self._wake)
        except Exception as error:  # noqa: BLE001  (a defect is logged, and answered as one)
            outcome = as_triune_error(error, METHOD)
        self._pending.append(_Pending(message, outcome, len(data)))
        self._progress.set()

    def _wake(self, _: asyncio.Future[InferenceResponse]) -> None:
        self._progress.set()

    def _end_decoupled(self, num_bytes: int, task: asyncio.Task[None]) -> None:
        self._decoupled.discard(task)
        self._end(num_bytes)

    def _end(self, num_bytes: int) -> None:
        self._num_pending -= 1
        self._pending_bytes -= num_bytes
        self._room.set()

    async def _write_in_order(self, reader: asyncio.Task[None]) -> None:
        """Write the answers of models with one response a request, each after those before it."""
        while self._error is None:
            if self._pending and self._pending[0].is_done():
                pending = self._pending.popleft()
                await self._write_outcome(pending)
                self._end(pending.num_bytes)
            elif reader.done() and not self._pending:
                return
            else:
                self._progress.clear()
                await self._progress.wait()

    async def _write_outcome(self, pending: _Pending) -> None:
        try:
            answer = _answer(pending.result(), is_final=True)
        except Exception as error:  # noqa: BLE001  (a defect is logged, and answered as one)
            await self._write_error(pending.message, as_triune_error(error, METHOD))
        else:
            await self._write(answer)

    async def _answer_decoupled(
        self, message: ModelInferRequest, request: InferenceRequest, is_empty_final_wanted: bool
    ) -> None:
        """Write the responses of a decoupled model as they come."""
        is_final = False
        try:
            responses = cast(AsyncGenerator[InferenceResponse], self._server.stream(request))
            async with aclosing(responses):
                async for response in responses:
                    is_final = response.is_final
                    if response.outputs or not is_final or is_empty_final_wanted:
                        await self._write(_answer(response, is_final=is_final))
            if not is_final and is_empty_final_wanted:
                await self._write(ModelStreamInferResponse(infer_response=_header(message)))
        except Exception as error:  # noqa: BLE001  (a defect is logged, and answered as one)
            await self._write_error(message, as_triune_error(error, METHOD))

    async def _write_error(self, message: ModelInferRequest, error: TriuneError) -> None:
        if not self._ends_on_error:
            await self._write(
                ModelStreamInferResponse(error_message=details_of(error), infer_response=_header(message))
            )
        elif self._error is None:
            self._error = error
            self._progress.set()

    async def _write(self, message: ModelStreamInferResponse) -> None:
        async with self._writing:
            await self._context.write(message.SerializeToString())


def _answer(response: InferenceResponse, *, is_final: bool) -> ModelStreamInferResponse:
    encoded = grpc_codec.encode_response(response)
    encoded.parameters[FINAL_RESPONSE].bool_param = is_final
    return ModelStreamInferResponse(infer_response=encoded)


def _header(message: ModelInferRequest) -> ModelInferResponse:
    """A final response without outputs: which request it belongs to."""
    header = ModelInferResponse(id=message.id, model_name=message.model_name, model_version=message.model_version)
    header.parameters[FINAL_RESPONSE].bool_param = True
    return header
