"""Table models for tests of the page at `/`: with the counters of an engine, and together with models that do not
run.
"""

from collections.abc import Sequence
from typing import Any

from support.configs import model_config
from support.hand_server import ANSWER, VECTOR
from support.table_servable import TableServable
from support.table_text_model import TableTextModel, TableTextModels
from triune.core.statistics import FailureReason, ModelStatistics
from triune.core.units import Unit
from triune.engine.counters import EngineCounters, EngineState
from triune.engine.servable import TextServable
from triune.engine.speech.servable import SpeechServable
from triune.repository.model import IndexEntry, ModelState
from triune.scheduling.models import LoadedVersion

HOSTILE = "<img src=x onerror=\"document.title='hacked'\">"


class CountedTable(TableTextModel):
    """A table model with the further properties that a server reads of a text model."""

    def __init__(self, answers: Any, **options: Any) -> None:
        super().__init__(answers, **options)
        self.statistics = ModelStatistics()
        self.counters = EngineCounters()
        self.state = EngineState(0, 0, 8, 0, 0, 0, 0, {})

    def refuse(self) -> None: ...

    async def drain(self) -> None: ...

    async def close(self) -> None: ...


class PageModels(TableTextModels):
    """Text models, one tensor model (`adder`), and one with a hostile name and reason that failed to load."""

    name = "triune"
    version = "9.8.7"

    def __init__(self, models: dict[str, CountedTable], *, listener: str = "") -> None:
        """Args:
        models: the text models by name.
        listener: the name of a model that transcribes speech; "" for none. The caller must provide that model.
        """
        super().__init__(models)
        self.listener = listener
        self.adder = LoadedVersion(
            3,
            model_config([VECTOR], [ANSWER], name="adder"),
            TableServable(),
            {Unit.AMX: "bf16", Unit.CPU: "fp32"},
            frozenset({Unit.AMX}),
        )
        counted = self.adder.statistics
        counted.success.add(6_000_000, 3)
        counted.unit_inferences[Unit.CPU] = 3
        counted.record_failure(FailureReason.REJECTED, 0)

    def statistics(self, name: str = "", version: int | None = None) -> Sequence[LoadedVersion]:
        texts = [
            LoadedVersion(
                1, model_config([VECTOR], [ANSWER], name=name), TextServable(model, name, 1), {Unit.CPU: "fp32"}
            )
            for name, model in self.models.items()
        ]
        if self.listener:
            servable = SpeechServable(CountedTable({}), self.listener, 1)  # type: ignore[arg-type]
            texts.append(LoadedVersion(1, model_config([VECTOR], [ANSWER], name=self.listener), servable))
        return [*texts, self.adder]

    def last_index(self, *, is_ready_only: bool = False) -> Sequence[IndexEntry]:
        listeners = [IndexEntry(self.listener, 1, ModelState.READY)] if self.listener else []
        ready = [*super().last_index(), *listeners, IndexEntry("adder", 3, ModelState.READY)]
        others = [
            IndexEntry(HOSTILE, 1, ModelState.UNAVAILABLE, f"no such file {HOSTILE}"),
            IndexEntry("idle", None, None),
        ]
        return ready if is_ready_only else [*ready, *others]
