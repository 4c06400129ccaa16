"""Requests that are refused over gRPC: their bytes are freed at once, without the garbage collection."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any, NoReturn

import grpc
import numpy as np
import pytest

from support.hand_server import HandServer
from triune.frontends.bodies.budget import MemoryBudget
from triune.frontends.bodies.decoder import Decoder
from triune.frontends.bodies.offload import Offload
from triune.frontends.kserve.grpc.health import HealthService
from triune.frontends.kserve.grpc.large import LargeMessages
from triune.frontends.kserve.grpc.service import InferenceService
from triune.frontends.limits import Limits
from triune.protos.grpc_service_pb2 import ModelInferRequest, RepositoryModelLoadRequest


class Token:
    """Lives as long as the bytes that have it."""


class Data(bytes):
    """A request's bytes; bytes themselves cannot be watched."""

    token: Token


class Forgetful(list[Any]):
    """Keeps nothing of what it is told."""

    def append(self, each: object) -> None:
        pass


class AbortError(Exception):
    pass


class HeldContext:
    """As gRPC's: the context holds the exception that ends the call, whose frames hold the context."""

    def __init__(self, data: list[Data]) -> None:
        self.data = data
        self.error: AbortError | None = None
        self.details = ""

    def invocation_metadata(self) -> None:
        return None

    async def read(self) -> object:
        if self.data:
            return self.data.pop()
        await asyncio.sleep(0)
        return grpc.aio.EOF

    async def send_initial_metadata(self, metadata: object) -> None:
        pass

    async def write(self, message: bytes) -> None:
        self.details += message.decode(errors="replace")

    async def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        self.details = details
        self.error = AbortError()
        raise self.error


@pytest.fixture
def offload() -> Iterator[Offload]:
    offload = Offload(num_threads=1, num_processes=1)
    yield offload
    offload.close()


@pytest.fixture
def server() -> HandServer:
    server = HandServer()
    server.requests = Forgetful()
    return server


@pytest.fixture
def handlers(server: HandServer, offload: Offload) -> dict[str, Any]:
    limits = Limits()
    large = LargeMessages(server, Decoder(limits, offload), offload)  # type: ignore[arg-type]
    service = InferenceService(server, limits, MemoryBudget(64 << 20), large)  # type: ignore[arg-type]
    handlers = {**service.handlers(), **HealthService(server).handlers()}  # type: ignore[arg-type]
    return {
        name: each.unary_unary or each.unary_stream or each.stream_stream or each.stream_unary
        for name, each in handlers.items()
    }


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def infer(model: str, *, num_missing: int = 0, raw: bool = True) -> bytes:
    message = ModelInferRequest(model_name=model)
    tensor = message.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 40_000 + num_missing])
    if raw:
        message.raw_input_contents.append(bytes(160_000))
    else:
        tensor.contents.fp32_contents.extend(np.zeros(40_000, np.float32))
    return message.SerializeToString()


def load(size: int) -> bytes:
    message = RepositoryModelLoadRequest(model_name="broken")
    message.parameters["config"].string_param = "{}"
    message.parameters["file:1/model.onnx"].bytes_param = bytes(size)
    return message.SerializeToString()


LARGE = b"\x9a\x3f\x00" * 40_000


@pytest.mark.parametrize(
    ("method", "data", "message"),
    [
        ("ServerLive", LARGE, "65536 are the limit"),
        ("RepositoryModelUnload", LARGE, "65536 are the limit"),
        ("ServerLive", b"\xff" * 100, "are not a valid ServerLiveRequest"),
        ("TraceSetting", LARGE, "tracing is not offered"),
        ("Check", LARGE, "65536 are the limit"),
        ("Watch", LARGE, "65536 are the limit"),
        ("Check", b"\xff" * 100, "are not a valid HealthCheckRequest"),
        ("ModelInfer", LARGE, "more than 4096 inputs"),
        ("ModelInfer", infer("nothing"), "unknown model"),
        ("ModelInfer", infer("identity", num_missing=1), "INPUT0"),
        ("ModelInfer", infer("identity", num_missing=1, raw=False), "INPUT0"),
        ("ModelInfer", infer("failing"), "poison"),
        ("RepositoryModelLoad", b"\xff" * 100_000, "are not a valid RepositoryModelLoadRequest"),
        ("RepositoryModelLoad", load(1000), "no such file"),
        ("RepositoryModelLoad", load(100_000), "no such file"),
    ],
)
async def test_what_is_refused_is_freed_at_once(
    handlers: dict[str, Any], no_collection: None, method: str, data: bytes, message: str
) -> None:
    watched = Data(data)
    watched.token = Token()
    token = weakref.ref(watched.token)
    context = HeldContext([])
    call = handlers[method](watched, context)
    del watched
    with pytest.raises(AbortError):
        await call
    del call
    assert message in context.details
    async with asyncio.timeout(60):
        while token() is not None:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (LARGE, "more than 4096 inputs"),
        (infer("nothing"), "unknown model"),
        (infer("identity", num_missing=1), "INPUT0"),
        (infer("failing"), "poison"),
    ],
)
async def test_what_is_refused_on_a_stream_is_freed_at_once(
    handlers: dict[str, Any], no_collection: None, data: bytes, message: str
) -> None:
    watched = Data(data)
    watched.token = Token()
    token = weakref.ref(watched.token)
    context = HeldContext([watched])
    del watched
    freed: list[bool] = []
    read = context.read

    async def read_later() -> object:
        """The next message comes only after the answer to the one before."""
        if not context.data:
            while not context.details:
                await asyncio.sleep(0)
            await asyncio.sleep(0.01)
            freed.append(token() is None)
        return await read()

    context.read = read_later  # type: ignore[method-assign]
    await handlers["ModelStreamInfer"](None, context)
    assert message in context.details
    assert freed == [True]


async def test_an_answer_that_nobody_reads_is_freed_when_its_client_leaves(
    handlers: dict[str, Any], no_collection: None
) -> None:
    context = HeldContext([Data(infer("identity"))])
    writing = asyncio.Event()

    async def write(message: bytes) -> None:
        writing.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:  # as gRPC's, which cannot finish what it has begun
            raise grpc.aio.InternalError from None

    context.write = write  # type: ignore[method-assign]
    call = asyncio.create_task(handlers["ModelStreamInfer"](None, context))
    await writing.wait()
    assert len(answers()) == 1
    call.cancel()
    await asyncio.wait([call])
    assert not answers()


def answers() -> list[bytes]:
    """The large answers in memory."""
    found = {id(each): each for owner in gc.get_objects() for each in gc.get_referents(owner) if type(each) is bytes}
    return [each for each in found.values() if len(each) > 160_000 and b"triton_final_response" in each]
