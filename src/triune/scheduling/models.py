"""Loaded versions of models, and how one that answers by calling others finds them."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from triune.config import checks, results
from triune.config.model_config import ModelConfig
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.core.servable import Call, Servable
from triune.core.statistics import ModelStatistics
from triune.core.units import Unit


class Holds:
    """Requests to other models that still need a version. It is not closed before each has let go of it."""

    __slots__ = ("_free", "num")

    def __init__(self) -> None:
        self.num = 0
        self._free: asyncio.Event | None = None

    def hold(self) -> None:
        """One more. Each calls `release` once."""
        self.num += 1

    def release(self) -> None:
        """One less."""
        self.num -= 1
        if self._free is not None and not self.num:
            self._free.set()

    async def until_free(self) -> None:
        """Wait until nobody holds it."""
        while self.num:
            self._free = asyncio.Event()
            await self._free.wait()


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """A version of a model that answers requests.

    Attributes:
        version: its number, the folder's name.
        config: the completed configuration.
        servable: answers its requests.
        precisions: what it computes in on each of its units ("fp32", "bf16", "fp16"); empty if it has none of its own.
        emulated: those of its units that are no hardware here.
        holds: who is to be answered by it even if it is unloaded or replaced meanwhile.
    """

    version: int
    config: ModelConfig
    servable: Servable
    precisions: Mapping[Unit, str] = field(default_factory=dict[Unit, str])
    emulated: frozenset[Unit] = frozenset()
    holds: Holds = field(default_factory=Holds, compare=False)

    @property
    def statistics(self) -> ModelStatistics:
        """What its servable counted since it was loaded."""
        return self.servable.statistics

    def check(self, request: InferenceRequest) -> Call:
        """Check a request against the config: names, datatypes and shapes.

        Raises:
            InvalidArgumentError: the request does not fit the model; the message says what was expected and what came.
            UnsupportedError: the model is decoupled.
        """
        inputs, batch_size = checks.check(request, self.config)
        return Call(request, inputs, batch_size, results.finisher(request, self.config))

    def submit(self, request: InferenceRequest) -> asyncio.Future[InferenceResponse]:
        """Check a request and take it. Raises as `check` and as `Servable.submit` do."""
        return self.servable.submit(self.check(request))


class Models(Protocol):
    """The models that are served. On the event loop's thread only."""

    def get(self, name: str, version: int | None = None) -> LoadedVersion:
        """A version that answers requests; None for the newest.

        Ask for it anew for each request: the versions that are ready change while the server runs, and one that was
        replaced refuses what comes, unless it is held (`LoadedVersion.holds`).

        Raises:
            NotFoundError: unknown model or version.
            UnavailableError: known, but not ready; the message says state and reason.
        """
        ...
