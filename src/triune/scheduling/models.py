"""Loaded versions of models, and the look-up that ensembles use to call other models."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from triune.config import checks, results
from triune.config.model_config import ModelConfig
from triune.core.errors import UnsupportedError
from triune.core.placement import Placement
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.core.servable import Call, Servable
from triune.core.statistics import ModelStatistics
from triune.core.units import Unit


class Holds:
    """A reference count of requests that still need a version. The version is not closed before the count is 0."""

    __slots__ = ("_free", "num")

    def __init__(self) -> None:
        self.num = 0
        self._free: asyncio.Event | None = None

    def hold(self) -> None:
        """Add a reference. Whoever adds one calls `release` once."""
        self.num += 1

    def release(self) -> None:
        """Drop a reference."""
        self.num -= 1
        if self._free is not None and not self.num:
            self._free.set()

    async def until_free(self) -> None:
        """Wait until the count is 0."""
        while self.num:
            self._free = asyncio.Event()
            await self._free.wait()


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """A version of a model that answers requests.

    Attributes:
        version: its number, which is its folder's name.
        config: the completed configuration.
        servable: the object that answers its requests.
        precisions: the floating-point format ("fp32", "bf16", "fp16") on each unit of the model; empty for an ensemble.
        emulated: the units of the model that are emulated.
        placement: where the version computes, compared with what its config requests; None if the backend does not
            report it.
        holds: counts the requests to ensembles that will still call this version; it stays open for them even if it is
            unloaded or replaced.
    """

    version: int
    config: ModelConfig
    servable: Servable
    precisions: Mapping[Unit, str] = field(default_factory=dict[Unit, str])
    emulated: frozenset[Unit] = frozenset()
    placement: Placement | None = None
    holds: Holds = field(default_factory=Holds, compare=False)

    @property
    def statistics(self) -> ModelStatistics:
        """The servable's counters since it was loaded."""
        return self.servable.statistics

    def require_one_answer(self) -> None:
        """Raise UnsupportedError if a request may have any number of responses, since the model is decoupled."""
        if self.config.is_decoupled:
            raise UnsupportedError(f"model '{self.config.name}' is decoupled: use the streaming interface")

    def check(self, request: InferenceRequest) -> Call:
        """Check a request against the config: names, datatypes and shapes.

        Raises:
            InvalidArgumentError: the request does not match; the message gives the expected and the actual value.
        """
        inputs, batch_size = checks.check(request, self.config)
        return Call(request, inputs, batch_size, results.finisher(request, self.config))

    def submit(self, request: InferenceRequest) -> asyncio.Future[InferenceResponse]:
        """Check a request and submit it. Raises the errors of `require_one_answer`, `check` and `Servable.submit`."""
        self.require_one_answer()
        return self.servable.submit(self.check(request))


class Models(Protocol):
    """The models that are served, by name. Call its methods only on the event loop's thread."""

    def get(self, name: str, version: int | None = None) -> LoadedVersion:
        """Return a version of a model that answers requests; `version` None means the newest.

        Call this for each request: the versions change while the server runs, and a version that was replaced refuses
        requests, unless it is held (`LoadedVersion.holds`).

        Raises:
            NotFoundError: the model or version is unknown.
            UnavailableError: the version is known, but not ready; the message gives its state and the reason.
        """
        ...
