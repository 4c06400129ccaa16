"""The reference `Backend`: slow and obvious. It completes configs from a file, and answers from a function."""

from collections.abc import Callable, Mapping

from support.repositories import Bench
from support.table_servable import TableServable, nothing
from triune.backends.attempt import Attempt
from triune.backends.backend import Build
from triune.config.configure import Source, configure
from triune.config.model_config import ModelConfig
from triune.core.requests import InferenceResponse
from triune.core.servable import Call, Servable
from triune.scheduling.models import Models


class TableBackend:
    """See `Backend`.

    Attributes:
        previous: what each build was given as the previous one.
        models: what each `assemble` was given.
        on_build: called in each build; what it raises, the build raises.
    """

    supports: frozenset[str] = frozenset({"sequence_batching"})

    def __init__(self, bench: Bench, answer: Callable[[Call], InferenceResponse] = nothing) -> None:
        self.previous: list[Build | None] = []
        self.models: list[Models] = []
        self.on_build: Callable[[], None] = lambda: None
        self._bench = bench
        self._answer = answer

    def needs(self, source: Source) -> Mapping[str, frozenset[int | None]]:
        return {}

    def configure(self, source: Source, version: int) -> ModelConfig:
        return configure(source, version, self._bench.machine)

    def build(self, source: Source, version: int, previous: Build | None, attempt: Attempt) -> Build:
        self.previous.append(previous)
        config = self.configure(source, version)
        self.on_build()
        attempt.check()
        return Build(version, config, source)

    def assemble(self, build: Build, models: Models) -> Servable:
        self.models.append(models)
        return TableServable(self._answer)
