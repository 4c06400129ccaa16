"""The server without network protocols: what every front end calls.

All methods run on the event loop's thread. Errors are those of `core.errors`, which each front end translates for its
protocol.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from triune.config.encoder import ENCODER
from triune.config.model_config import ModelConfig
from triune.config.speech import SPEECH
from triune.config.transformer import TRANSFORMER
from triune.core.errors import InvalidArgumentError, NotFoundError, TriuneError, UnavailableError
from triune.core.requests import (
    InferenceRequest,
    InferenceResponse,
)
from triune.core.servable import Call
from triune.core.tensors import format_shape
from triune.core.threads import in_thread
from triune.core.version import VERSION
from triune.engine.encoder_servable import EncoderServable
from triune.engine.generation import EmbeddingModel, TextModel
from triune.engine.servable import TextServable
from triune.engine.speech.segments import SpeechModel
from triune.engine.speech.servable import SpeechServable
from triune.hardware.facts import UnitFacts
from triune.repository.memory.keeper import MemoryKeeper
from triune.repository.memory.parked import ParkedServable
from triune.repository.model import IndexEntry
from triune.repository.repository import Repository
from triune.scheduling.models import LoadedVersion
from triune.serving.recording import Recording
from triune.serving.reports import asked_reports, submit_with_reports

_log = logging.getLogger(__name__)

_FOR_TEXT = frozenset({TRANSFORMER, ENCODER, SPEECH})
"""The backends whose models the HTTP APIs for text can use."""

EXTENSIONS = (
    "classification",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "generate",
)


@dataclass(frozen=True, slots=True)
class _Passed:
    """What the server stores in `CheckCache.result`: requests that share this `CheckCache` fit `model`, and need no
    conversion of inputs or outputs.
    """

    model: LoadedVersion
    batch_size: int


def _is_as_given(call: Call) -> bool:
    """Whether the model takes the request's inputs as they are, and its outputs need no conversion."""
    return call.finish is None and all(call.inputs[name] is each for name, each in call.request.inputs.items())


def _stopping() -> UnavailableError:
    return UnavailableError("the server is stopping and takes no new requests; send this one elsewhere")


class Server:
    """Serves the models of a repository.

    Attributes:
        name: the server's name in its metadata.
        version: Triune's version.
        power: the power mode of all models.
        extensions: the protocol extensions that it supports.
    """

    version = VERSION
    extensions: Sequence[str] = EXTENSIONS

    def __init__(
        self,
        repository: Repository,
        *,
        name: str = "triune",
        is_ready_strict: bool = True,
        recording: Recording | None = None,
    ) -> None:
        """Args:
        repository: the repository, which owns the models. The caller opens and closes it.
        name: the server's name in its metadata (Triton's --id); some clients expect "triton".
        is_ready_strict: whether the server is ready only while every model is (Triton's --strict-readiness).
        recording: records the arrival times of requests; None if they are not recorded. The caller closes it.
        """
        self.name = name
        self._repository = repository
        self.power = repository.power
        self._is_ready_strict = is_ready_strict
        self._recording = recording
        self._is_draining = False
        self._has_failed = False
        self._units: asyncio.Task[Sequence[UnitFacts]] | None = None

    @property
    def memory(self) -> MemoryKeeper:
        """The object that keeps the models within the memory budget."""
        return self._repository.memory

    def is_live(self) -> bool:
        """Whether the server is live, which it is until `fail` is called."""
        return not self._has_failed

    def fail(self, why: str) -> None:
        """Make the server not live from now on, without ending the process (as Triton does). Call this if the
        repository could not be opened, so that the server is not ready either. `why` is written to the log.
        """
        self._has_failed = True
        _log.error("the server is neither live nor ready, and serves no model: %s; then start it again", why)

    def is_ready(self) -> bool:
        """Whether the server is ready: open, not draining, and (if strict) every model is ready."""
        if self._is_draining or not self._repository.is_open:
            return False
        return not self._is_ready_strict or self._repository.is_every_model_ready()

    def is_model_ready(self, name: str, version: int | None = None) -> bool:
        """Whether a version of a model (None: any version) is ready.

        Raises:
            NotFoundError: the repository has no such model.
        """
        return not self._is_draining and self._repository.is_ready(name, version)

    async def units(self) -> Sequence[UnitFacts]:
        """What is known of each unit of this machine. The first call queries the system in a thread; the result is
        cached.
        """
        if self._units is None or (self._units.done() and self._units.exception() is not None):
            self._units = asyncio.create_task(in_thread(self._repository.describe_units))
        # The task is shielded: if one waiting client is cancelled, the query goes on for the others.
        return await asyncio.shield(self._units)

    def model(self, name: str, version: int | None = None) -> LoadedVersion:
        """Get a loaded version (None: the newest), which has its `config`, `version` and `statistics`.

        Raises:
            NotFoundError: the model or version is unknown.
            UnavailableError: the model is known but not ready; the message says why.
        """
        return self._repository.get(name, version)

    def versions(self, name: str) -> Sequence[int]:
        """The ready versions of a model, ascending. Raises NotFoundError or UnavailableError as `model` does."""
        self._repository.get(name, None)
        return self._repository.versions(name)

    def config(self, name: str, version: int | None = None) -> ModelConfig:
        """The completed configuration of a loaded version. Raises the errors of `model`."""
        return self.model(name, version).config

    def statistics(self, name: str = "", version: int | None = None) -> Sequence[LoadedVersion]:
        """The loaded versions whose statistics to report: all, one model's, or one. Raises the errors of `model`."""
        if not name:
            return self._repository.loaded()
        if version is not None:
            return [self.model(name, version)]
        return [self.model(name, each) for each in self.versions(name)]

    def text_model(self, name: str, version: int | None = None) -> TextModel:
        """A loaded version (None: the newest) of a model that generates text.

        Ask for it for each request: versions are replaced while the server runs.

        Raises:
            InvalidArgumentError: the model does not generate text; the message lists the tensors that it takes.
            NotFoundError: the model or version is unknown.
            UnavailableError: the model is not ready, or the server is stopping.
        """
        self._require_open()
        model = self.model(name, version)
        if not isinstance(model.servable, TextServable):
            raise _other_kind(model, "generate text")
        return model.servable.model

    def embedding_model(self, name: str, version: int | None = None) -> EmbeddingModel:
        """A loaded version (None: the newest) of a model that embeds texts. See `text_model`."""
        self._require_open()
        model = self.model(name, version)
        if not isinstance(model.servable, EncoderServable) or not model.servable.is_embedding:
            raise _other_kind(model, "embed texts")
        return model.servable

    def speech_model(self, name: str, version: int | None = None) -> SpeechModel:
        """A loaded version (None: the newest) of a model that transcribes speech. See `text_model`."""
        self._require_open()
        model = self.model(name, version)
        if not isinstance(model.servable, SpeechServable):
            raise _other_kind(model, "read speech")
        return model.servable.model

    async def awake(self, name: str, version: int | None = None) -> None:
        """Wait until a version is in memory, if it was unloaded to make room. Call it before `text_model` and the like.

        Raises:
            UnavailableError: the version cannot be loaded now, or too many requests wait for it. Other errors of the
                version are raised when it is used.
        """
        with contextlib.suppress(NotFoundError):
            servable = self._repository.get(name, version).servable
            if isinstance(servable, ParkedServable):
                await servable.awake()
            self._repository.memory.touch(name)

    def parked_text_model(self, name: str) -> Sequence[str] | None:
        """The LoRA adapters of a text or speech model that was unloaded to make room; None for any other model."""
        with contextlib.suppress(TriuneError):
            model = self._repository.get(name)
            if isinstance(model.servable, ParkedServable) and model.config.backend in _FOR_TEXT:
                return model.servable.adapters
        return None

    def infer(self, request: InferenceRequest) -> asyncio.Future[InferenceResponse]:
        """Start one inference.

        Returns:
            a future of the response. It may be done already, since small models run before this returns: check
            `done()` before waiting. Its exception is a TriuneError. Cancelling it withdraws the request and affects
            no other.

        Raises:
            InvalidArgumentError: the request does not fit the model.
            NotFoundError: unknown model or version.
            UnavailableError: the model is not ready, its queue is full, or the server is stopping.
            UnsupportedError: the model is decoupled; use `stream`.
        """
        model, call = self._admit(request)
        model.require_one_answer()
        if self._recording is not None:
            self._recording.record(call)
        if request.parameters and (asked := asked_reports(request)) is not None:
            return submit_with_reports(model.servable, call, model.placement, asked)
        return model.servable.submit(call)

    async def stream(self, request: InferenceRequest) -> AsyncIterator[InferenceResponse]:
        """Iterate over the responses to one request; the last has `is_final`. Raises the errors of `infer`.

        Closing the iterator cancels the request.
        """
        model, call = self._admit(request)
        if self._recording is not None:
            self._recording.record(call)
        async with contextlib.aclosing(model.servable.stream(call)) as responses:
            async for response in responses:
                yield response

    def _admit(self, request: InferenceRequest) -> tuple[LoadedVersion, Call]:
        """Check a request.

        Returns:
            the version that answers it, and the call for it.

        Raises:
            TriuneError: an error of `infer`.
        """
        if self._is_draining:
            raise _stopping()
        model = self._repository.get(request.model, request.version)
        check_cache = request.check_cache
        if check_cache is not None:
            passed = check_cache.result
            if isinstance(passed, _Passed) and passed.model is model:
                return model, Call(request, request.inputs, passed.batch_size)
        call = model.check(request)
        if check_cache is not None and _is_as_given(call):
            check_cache.result = _Passed(model, call.batch_size)
        return model, call

    def _require_open(self) -> None:
        if self._is_draining:
            raise _stopping()

    async def index(self, *, is_ready_only: bool = False) -> Sequence[IndexEntry]:
        """Scan the repository, and return name, version, state and reason of each version of a model; if
        `is_ready_only`, only of the versions that are ready.

        Raises:
            InvalidArgumentError: the repository cannot be read now, and could not be read before.
        """
        await self._repository.list_folders()
        return self.last_index(is_ready_only=is_ready_only)

    def last_index(self, *, is_ready_only: bool = False) -> Sequence[IndexEntry]:
        """The index as of the last scan of the repository; see `index`."""
        return self._repository.index(is_ready_only=is_ready_only)

    async def load(
        self, name: str, *, config_json: str | None = None, files: Mapping[str, bytes] | None = None
    ) -> None:
        """Load or reload a model.

        Args:
            name: the model's folder.
            config_json: a ModelConfig in JSON, which replaces config.pbtxt.
            files: path below the model's folder ("1/model.onnx") to content, which replaces the files on disk;
                needs `config_json`.

        Raises:
            InvalidArgumentError: the model or the override is invalid; a version that is already served stays.
            NotFoundError: there is no such model.
            UnavailableError: the repository's control mode does not allow it.
        """
        await self._repository.load(name, config_json=config_json, files=files or {})

    async def unload(self, name: str, *, unload_dependents: bool = False) -> None:
        """Refuse new requests for a model, and unload it when the running ones have finished. An unknown model is
        ignored.

        Args:
            name: the model.
            unload_dependents: whether to unload also the models that it needs, unless a client loaded them by name or
                another model needs them (Triton's name and rule).

        Raises:
            UnavailableError: the repository's control mode does not allow it.
        """
        await self._repository.unload(name, unload_dependents=unload_dependents)

    async def drain(self) -> None:
        """Refuse new requests, and wait until the running requests are answered."""
        self._is_draining = True
        await self._repository.drain()


def _other_kind(model: LoadedVersion, wanted: str) -> InvalidArgumentError:
    inputs = ", ".join(
        f"{each.name}: {each.datatype.value}{format_shape(each.dims)}" for each in model.config.inputs.values()
    )
    return InvalidArgumentError(
        f"model '{model.config.name}' does not {wanted}: it takes the tensors {inputs or 'none'}; use its inference "
        "endpoint"
    )
