"""A server with `serving.Server`'s methods, but without repository and scheduler. Its models do what a test tells them
to.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from support.configs import model_config
from support.table_servable import TableServable
from triune.config.model_config import ModelConfig, TensorConfig
from triune.core.datatypes import DataType
from triune.core.errors import InternalError, InvalidArgumentError, NotFoundError, TriuneError, UnavailableError
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.repository.model import IndexEntry, ModelState
from triune.scheduling.models import LoadedVersion

VECTOR = TensorConfig("INPUT0", DataType.FP32, (16,))
ANSWER = TensorConfig("OUTPUT0", DataType.FP32, (16,))


class HandServer:
    """It has these models: `identity` returns its inputs at once; `slow` answers when `release` is called; `failing`
    fails with `error`; `defective` raises an unexpected exception; `repeat` is decoupled, answers with each element of
    IN, and then reports that it is done.
    """

    name = "triune"
    version = "9.8.7"
    extensions = ("statistics", "model_repository")

    def __init__(self) -> None:
        self.error: TriuneError = InvalidArgumentError("input 'INPUT0' holds poison")
        self.is_up = True
        self.is_stopping = False
        self.requests: list[InferenceRequest] = []
        self.waiting: list[tuple[InferenceRequest, asyncio.Future[InferenceResponse]]] = []
        self.arrived = asyncio.Event()
        self.num_open_streams = 0
        self.all_streams_closed = asyncio.Event()
        self.parameters: dict[str, Any] = {}
        self.loads: list[tuple[str, str | None, Mapping[str, bytes]]] = []
        self.unloads: list[tuple[str, bool]] = []
        self.load_gate: asyncio.Event | None = None
        self.models = {
            name: LoadedVersion(2, _config(name, is_decoupled=name == "repeat"), TableServable())
            for name in ("identity", "slow", "failing", "defective", "repeat")
        }

    def is_live(self) -> bool:
        return True

    def is_ready(self) -> bool:
        return self.is_up

    def is_model_ready(self, name: str, version: int | None = None) -> bool:
        if name not in self.models:
            raise NotFoundError(f"unknown model '{name}'")
        return version in (None, 2)

    def model(self, name: str, version: int | None = None) -> LoadedVersion:
        if name not in self.models:
            raise NotFoundError(f"unknown model '{name}'")
        if version not in (None, 2):
            raise NotFoundError(f"model '{name}' has no version {version}")
        return self.models[name]

    def versions(self, name: str) -> Sequence[int]:
        return [self.model(name).version]

    def config(self, name: str, version: int | None = None) -> ModelConfig:
        return self.model(name, version).config

    def statistics(self, name: str = "", version: int | None = None) -> Sequence[LoadedVersion]:
        return [self.model(name, version)] if name else list(self.models.values())

    def infer(self, request: InferenceRequest) -> asyncio.Future[InferenceResponse]:
        if self.is_stopping:
            raise UnavailableError("the server is stopping")
        model = self.model(request.model, request.version)
        self.requests.append(request)
        future: asyncio.Future[InferenceResponse] = asyncio.get_running_loop().create_future()
        if request.model == "slow":
            self.waiting.append((request, future))
            self.arrived.set()
        elif request.model == "failing":
            future.set_exception(self.error)
        elif request.model == "defective":
            raise KeyError("a defect")
        else:
            model.statistics.success.add(1_500_000)
            future.set_result(self.answer(request))
        return future

    def answer(self, request: InferenceRequest) -> InferenceResponse:
        outputs = {name.replace("INPUT", "OUTPUT"): array for name, array in request.inputs.items()}
        return InferenceResponse(request.model, 2, outputs, request.id, self.parameters)

    async def until_waiting(self, count: int) -> None:
        """Return once `count` requests of `slow` wait."""
        while len(self.waiting) < count:
            self.arrived.clear()
            await self.arrived.wait()

    def release(self, *indices: int) -> None:
        """Answer the requests of `slow` at these positions in the order of arrival."""
        for index in indices:
            request, future = self.waiting[index]
            future.set_result(self.answer(request))

    async def stream(self, request: InferenceRequest) -> AsyncIterator[InferenceResponse]:
        if request.model != "repeat":
            yield await self.infer(request)
            return
        self.requests.append(request)
        self.num_open_streams += 1
        try:
            for value in request.inputs["IN"]:
                if value < 0:
                    raise InternalError(f"{value} cannot be repeated")
                await asyncio.sleep(0.001)
                yield InferenceResponse(request.model, 2, {"OUT": value.reshape(1)}, request.id, {}, is_final=False)
            if request.parameters.get("says_final"):
                yield InferenceResponse(request.model, 2, {}, request.id, {}, is_final=True)
        finally:
            self.num_open_streams -= 1
            if self.num_open_streams == 0:
                self.all_streams_closed.set()

    async def index(self, *, is_ready_only: bool = False) -> Sequence[IndexEntry]:
        ready = [IndexEntry(name, 2, ModelState.READY) for name in self.models]
        broken = [IndexEntry("broken", 1, ModelState.UNAVAILABLE, "no such file"), IndexEntry("idle", None, None)]
        return ready if is_ready_only else ready + broken

    async def load(
        self, name: str, *, config_json: str | None = None, files: Mapping[str, bytes] | None = None
    ) -> None:
        if self.load_gate is not None:
            self.arrived.set()
            await self.load_gate.wait()
        if name == "broken":
            raise InvalidArgumentError("model 'broken' has no such file")
        self.loads.append((name, config_json, files or {}))

    async def unload(self, name: str, *, unload_dependents: bool = False) -> None:
        self.unloads.append((name, unload_dependents))


def _config(name: str, *, is_decoupled: bool) -> ModelConfig:
    if is_decoupled:
        inputs, outputs = TensorConfig("IN", DataType.INT32, (-1,)), TensorConfig("OUT", DataType.INT32, (1,))
        return model_config([inputs], [outputs], name=name, is_decoupled=True)
    return model_config([VECTOR], [ANSWER], name=name, max_batch_size=8)
