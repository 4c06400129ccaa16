"""The methods of GRPCInferenceService. They take and return bytes, so that a malformed message gets a typed error."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from triune.core.errors import InvalidArgumentError, NotFoundError, TriuneError, UnsupportedError
from triune.core.requests import InferenceResponse
from triune.frontends.access import OPEN, Api, Rules
from triune.frontends.bodies.budget import REQUEST_BYTES, MemoryBudget, Reservation
from triune.frontends.bodies.offload import SMALL_BYTES
from triune.frontends.kserve.grpc import codec as grpc_codec
from triune.frontends.kserve.grpc import messages as grpc_messages
from triune.frontends.kserve.grpc.codec import parse_version
from triune.frontends.kserve.grpc.guard import guarded
from triune.frontends.kserve.grpc.large import LargeMessages, decode_small
from triune.frontends.kserve.grpc.status import Context, abort, as_triune_error
from triune.frontends.kserve.grpc.stream import StreamSession
from triune.frontends.kserve.large_tensors import encoded_bytes
from triune.frontends.kserve.power import in_mode, mode_in
from triune.frontends.limits import Limits, check_small
from triune.protos import grpc_service_pb2 as messages
from triune.serving.server import Server

SERVICE = "inference.GRPCInferenceService"

_APIS = {
    "ServerLive": Api.HEALTH,
    "ServerReady": Api.HEALTH,
    "ModelReady": Api.HEALTH,
    "ServerMetadata": Api.METADATA,
    "ModelMetadata": Api.METADATA,
    "ModelInfer": Api.INFERENCE,
    "ModelStreamInfer": Api.INFERENCE,
    "ModelConfig": Api.MODEL_CONFIG,
    "ModelStatistics": Api.STATISTICS,
    "RepositoryIndex": Api.MODEL_REPOSITORY,
    "RepositoryModelLoad": Api.MODEL_REPOSITORY,
    "RepositoryModelUnload": Api.MODEL_REPOSITORY,
    "SystemSharedMemoryStatus": Api.SHARED_MEMORY,
    "SystemSharedMemoryRegister": Api.SHARED_MEMORY,
    "SystemSharedMemoryUnregister": Api.SHARED_MEMORY,
    "CudaSharedMemoryStatus": Api.SHARED_MEMORY,
    "CudaSharedMemoryRegister": Api.SHARED_MEMORY,
    "CudaSharedMemoryUnregister": Api.SHARED_MEMORY,
    "TraceSetting": Api.TRACE,
    "LogSettings": Api.LOGGING,
}

_UNSUPPORTED = {
    "SystemSharedMemoryStatus": "system shared memory is not offered; send tensors in the request",
    "SystemSharedMemoryRegister": "system shared memory is not offered; send tensors in the request",
    "SystemSharedMemoryUnregister": "system shared memory is not offered; send tensors in the request",
    "CudaSharedMemoryStatus": "CUDA shared memory is not offered; send tensors in the request",
    "CudaSharedMemoryRegister": "CUDA shared memory is not offered; send tensors in the request",
    "CudaSharedMemoryUnregister": "CUDA shared memory is not offered; send tensors in the request",
    "TraceSetting": "tracing is not offered; use the statistics and the metrics instead",
    "LogSettings": "log settings cannot be changed while the server runs; use --log-verbose when starting it",
}

Handler = Callable[[bytes, Context], Awaitable[bytes]]
RequestT = TypeVar("RequestT", bound=Message)


class InferenceService:
    """KServe's service over a `serving.Server`."""

    def __init__(self, server: Server, limits: Limits, budget: MemoryBudget, large: LargeMessages) -> None:
        """Args:
        server: answers the requests; the caller owns it.
        limits: the limits on requests.
        budget: the memory budget.
        large: decodes and encodes large messages.
        """
        self._server = server
        self._limits = limits
        self._budget = budget
        self._large = large
        self._streams: set[StreamSession] = set()
        self._changes: set[asyncio.Task[None]] = set()

    def handlers(self, rules: Rules = OPEN) -> dict[str, Any]:
        """Each method's gRPC handler, for `grpc.method_handlers_generic_handler`, guarded by the access `rules`."""
        unary: dict[str, Handler] = {
            "ServerLive": _answering("ServerLive", messages.ServerLiveRequest, self._server_live),
            "ServerReady": _answering("ServerReady", messages.ServerReadyRequest, self._server_ready),
            "ModelReady": _answering("ModelReady", messages.ModelReadyRequest, self._model_ready),
            "ServerMetadata": _answering("ServerMetadata", messages.ServerMetadataRequest, self._server_metadata),
            "ModelMetadata": _answering("ModelMetadata", messages.ModelMetadataRequest, self._model_metadata),
            "ModelConfig": _answering("ModelConfig", messages.ModelConfigRequest, self._model_config),
            "ModelStatistics": self.statistics,
            "RepositoryIndex": _answering("RepositoryIndex", messages.RepositoryIndexRequest, self._repository_index),
            "RepositoryModelLoad": self.load,
            "RepositoryModelUnload": _answering(
                "RepositoryModelUnload", messages.RepositoryModelUnloadRequest, self._unload
            ),
            "ModelInfer": self.infer,
        }
        unary.update({name: _refusing(message) for name, message in _UNSUPPORTED.items()})
        handlers: dict[str, Any] = {
            name: grpc.unary_unary_rpc_method_handler(guarded(handler, rules.get(_APIS[name])))
            for name, handler in unary.items()
        }
        stream_infer = guarded(self.stream_infer, rules.get(Api.INFERENCE))
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(stream_infer)
        return handlers

    def stop_streams(self) -> None:
        """Stop reading from every stream. A stream ends when the requests that it has read are answered."""
        for stream in tuple(self._streams):
            stream.stop()

    async def infer(self, data: bytes, context: Context) -> bytes:
        """Answer a call of ModelInfer. If the client cancels, gRPC cancels this coroutine, and so the future that it
        awaits.
        """
        try:
            return await self._infer(data, context)
        except Exception as error:  # noqa: BLE001  (a defect is logged, and answered as one)
            del data
            await abort(context, as_triune_error(error, "ModelInfer"))

    async def _infer(self, data: bytes, context: Context) -> bytes:
        held: Reservation | None = None
        try:
            if len(data) > SMALL_BYTES:
                held = self._budget.reserve(len(data))
                _, request = await self._large.decode(data, held)
            else:
                request = decode_small(grpc_codec.parse_request(data), self._server)
            future = self._server.infer(in_mode(request, mode_in(context.invocation_metadata())))
            if not future.done():
                held = held or self._budget.reserve()
                response = await self._wait(future, held, len(data))
            else:
                response = future.result()
            if encoded_bytes(response.outputs) <= SMALL_BYTES:
                answer = grpc_codec.encode_response(response).SerializeToString()
            else:
                held = held or self._budget.reserve()
                answer = await self._large.encode(response, held)
        except BaseException:
            if held is not None:
                held.release()
            raise
        if held is not None:
            # Reserve memory for two responses: gRPC keeps the response and a copy of it until the client has read it.
            held.resize(min(held.num_bytes, 2 * len(answer)))
            context.add_done_callback(partial(_release, held))
        return answer

    async def _wait(
        self, future: asyncio.Future[InferenceResponse], held: Reservation, num_bytes: int
    ) -> InferenceResponse:
        try:
            held.resize(max(held.num_bytes, num_bytes + REQUEST_BYTES))
            return await future
        except BaseException:
            future.cancel()
            raise
        finally:
            # Drop the reference to the future: the future refers to its error, and the error's traceback to this frame.
            # If the frame referred to the future, they would form a reference cycle.
            del future

    async def stream_infer(self, _: object, context: Context) -> None:
        """Answer a call of ModelStreamInfer."""
        session = StreamSession(self._server, context, self._limits, self._budget, self._large)
        self._streams.add(session)
        try:
            await session.run()
        except Exception as error:  # noqa: BLE001  (a defect is logged, and answered as one)
            await abort(context, as_triune_error(error, "ModelStreamInfer"))
        finally:
            self._streams.discard(session)

    async def _server_live(self, _: messages.ServerLiveRequest) -> Message:
        return messages.ServerLiveResponse(live=self._server.is_live())

    async def _server_ready(self, _: messages.ServerReadyRequest) -> Message:
        return messages.ServerReadyResponse(ready=self._server.is_ready())

    async def _model_ready(self, request: messages.ModelReadyRequest) -> Message:
        try:
            version = parse_version(request.version)
            return messages.ModelReadyResponse(ready=self._server.is_model_ready(request.name, version))
        except NotFoundError:
            # Answer "not ready" instead of an error: clients ask for readiness before a model exists.
            return messages.ModelReadyResponse(ready=False)

    async def _server_metadata(self, _: messages.ServerMetadataRequest) -> Message:
        server = self._server
        return messages.ServerMetadataResponse(name=server.name, version=server.version, extensions=server.extensions)

    async def _model_metadata(self, request: messages.ModelMetadataRequest) -> Message:
        version = parse_version(request.version)
        model = self._server.model(request.name, version)
        versions = self._server.versions(request.name) if version is None else [version]
        return grpc_messages.model_metadata(model.config, versions)

    async def _model_config(self, request: messages.ModelConfigRequest) -> bytes:
        return grpc_messages.model_config(self._server.config(request.name, parse_version(request.version)))

    async def statistics(self, data: bytes, context: Context) -> bytes:
        """Answer a call of ModelStatistics. Statistics that Triton's message has no field for, such as joules, are in
        the trailing metadata.
        """

        async def told(request: messages.ModelStatisticsRequest) -> Message:
            models = self._server.statistics(request.name, parse_version(request.version))
            context.set_trailing_metadata(((grpc_messages.MORE_STATISTICS, grpc_messages.more_statistics(models)),))
            return grpc_messages.model_statistics(models)

        return await _answering("ModelStatistics", messages.ModelStatisticsRequest, told)(data, context)

    async def _repository_index(self, request: messages.RepositoryIndexRequest) -> Message:
        _refuse_repository_name(request.repository_name)
        return grpc_messages.repository_index(await self._server.index(is_ready_only=request.ready))

    async def load(self, data: bytes, context: Context) -> bytes:
        """Answer a call of RepositoryModelLoad, whose message may contain large files."""
        try:
            await self._load(data)
        except Exception as error:  # noqa: BLE001  (a defect is logged, and answered as one)
            del data
            await abort(context, as_triune_error(error, "RepositoryModelLoad"))
        return messages.RepositoryModelLoadResponse().SerializeToString()

    async def _load(self, data: bytes) -> None:
        with self._budget.reserve(len(data)) as held:
            name, repository, config_json, arrays = await self._large.parse_load(data, held)
            _refuse_repository_name(repository)
            files = await self._large.files_of(arrays)
            await self._change(self._server.load(name, config_json=config_json, files=files))

    async def _unload(self, request: messages.RepositoryModelUnloadRequest) -> Message:
        _refuse_repository_name(request.repository_name)
        unload_dependents = grpc_messages.is_unloading_dependents(request)
        await self._change(self._server.unload(request.model_name, unload_dependents=unload_dependents))
        return messages.RepositoryModelUnloadResponse()

    async def _change(self, change: Any) -> None:
        """Complete a load or unload even if the client disconnects meanwhile."""
        task = asyncio.create_task(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        await asyncio.shield(task)


def _release(held: Reservation, _: Context) -> None:
    held.release()


def _refuse_repository_name(name: str) -> None:
    if name:
        raise UnsupportedError(f"repository_name is '{name[:64]}'; leave it empty: models are found by name")


def _answering(method: str, kind: type[RequestT], answer: Callable[[RequestT], Awaitable[Message | bytes]]) -> Handler:
    async def handle(data: bytes, context: Context) -> bytes:
        try:
            check_small(len(data))
            found = await answer(_parse(kind, data))
            return found if isinstance(found, bytes) else found.SerializeToString()
        except Exception as error:  # noqa: BLE001  (a defect is logged, and answered as one)
            del data
            await abort(context, as_triune_error(error, method))

    return handle


def _parse(kind: type[RequestT], data: bytes) -> RequestT:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise InvalidArgumentError(
            f"the {len(data)} bytes received are not a valid {kind.__name__}: {error}"
        ) from error


def _refusing(message: str) -> Handler:
    error: TriuneError = UnsupportedError(message)

    async def refuse(data: bytes, context: Context) -> bytes:
        del data
        await abort(context, error)

    return refuse
