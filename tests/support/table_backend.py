"""The reference `Backend`: slow and simple. It completes configs from a file, and its models' answers are computed by a
function.
"""

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
    """A simple `Backend` for tests.

    Attributes:
        previous: the argument `previous` of each build.
        models: the argument `models` of each call of `assemble`.
        on_build: a function that each build calls. If it raises an error, the build raises it too.
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
