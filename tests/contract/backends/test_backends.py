"""What every backend owes: which fields it honours, what it needs, how it configures, builds and assembles."""

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.ensembles import chain, write_ensemble
from support.repositories import WARM_UP, Bench, affine, write_model
from support.steps import Shelf, fp32, table_model
from support.table_backend import TableBackend
from triune.backends.attempt import Attempt
from triune.backends.backend import Backend, Build
from triune.backends.ensemble import EnsembleBackend
from triune.backends.tensor.backend import TensorBackend
from triune.config.configure import Source, read_source
from triune.config.honour import FIELDS
from triune.config.model_config import ModelConfig
from triune.config.stamps import stamp
from triune.core.clock import MonotonicClock
from triune.core.errors import InvalidArgumentError, UnavailableError, UnsupportedError
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.core.servable import Call, Servable
from triune.core.threads import NoThreadError
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage

Part = tuple[str, int | None]

SET: Mapping[str, str] = {
    "ensemble_scheduling": 'ensemble_scheduling { step { model_name: "a" model_version: -1 } }',
    "sequence_batching": "sequence_batching { }",
    "batch_input": "batch_input { }",
    "batch_output": "batch_output { }",
    "model_operations.op_library_filename": 'model_operations { op_library_filename: "a.so" }',
    "model_repository_agents": 'model_repository_agents { agents { name: "a" } }',
    "model_transaction_policy.decoupled": "model_transaction_policy { decoupled: true }",
}
"""A config that sets each of FIELDS."""


class Watched(dict[Part, ModelConfig]):
    """The configs of an ensemble's models; calls `on_read` when one is read."""

    on_read: Callable[[], None] = staticmethod(lambda: None)

    def __getitem__(self, key: Part) -> ModelConfig:
        self.on_read()
        return super().__getitem__(key)


@dataclass(frozen=True)
class Kind:
    """A backend, and model 'm' of it: y = 2x for rows of four FP32 elements.

    Attributes:
        backend: the backend.
        bench: its runtimes, which remember what they loaded.
        config: the text of its config.
        folder: the model's folder, with version 1.
        parts: the configs of the models that it needs.
        models: those models.
        needs: what `needs` has to return.
        when_building: has a function called within each build.
    """

    backend: Backend[Any]
    bench: Bench
    config: str
    folder: Path
    parts: Mapping[Part, ModelConfig]
    models: Shelf
    needs: Mapping[str, frozenset[int | None]]
    when_building: Callable[[Callable[[], None]], None]

    def source(self, config: str | None = None) -> Source:
        (self.folder / "config.pbtxt").write_text(self.config if config is None else config)
        source = read_source("m", self.folder, stamp(self.folder), honours=lambda _: self.backend.honours)
        return replace(source, parts=self.parts)

    def build(self, source: Source | None = None, previous: Build | None = None) -> Build:
        return self.backend.build(source or self.source(), 1, previous, Attempt())


def double(call: Call) -> InferenceResponse:
    return InferenceResponse("m", 1, {"y": call.inputs["x"] * 2}, call.request.id)


def table(root: Path) -> Kind:
    bench = Bench()
    backend = TableBackend(bench, double)

    def when_building(work: Callable[[], None]) -> None:
        backend.on_build = work

    folder = write_model(root, "m", v1=affine())
    return Kind(backend, bench, "max_batch_size: 8", folder, {}, Shelf(), {}, when_building)


def tensor(root: Path, config: str = "") -> Kind:
    bench = Bench()

    def when_building(work: Callable[[], None]) -> None:
        if WARM_UP in config:
            bench.onnxruntime.on_run = work
        else:
            bench.onnxruntime.on_load = lambda _: work()

    backend = TensorBackend(bench.machine, MonotonicClock())
    folder = write_model(root, "m", v1=affine())
    return Kind(backend, bench, f"max_batch_size: 8 {config}", folder, {}, Shelf(), {}, when_building)


def ensemble(root: Path) -> Kind:
    doubler = table_model("doubler", fp32("x", dims=(4,)), fp32("y", dims=(4,)), lambda inputs: {"y": inputs["x"] * 2})
    parts = Watched({("doubler", None): doubler.config})

    def when_building(work: Callable[[], None]) -> None:
        parts.on_read = work

    folder = write_ensemble(root, "m", chain("doubler"))
    needs = {"doubler": frozenset({None})}
    backend = EnsembleBackend(MonotonicClock())
    return Kind(backend, Bench(), chain("doubler"), folder, parts, Shelf(doubler), needs, when_building)


KINDS: Mapping[str, Callable[[Path], Kind]] = {
    "table": table,
    "tensor": tensor,
    "tensor, warmed up": lambda root: tensor(root, WARM_UP),
    "tensor, two threads": lambda root: tensor(root, "instance_group { count: 2 }"),
    "ensemble": ensemble,
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kind]:
    """A backend of each kind. Whatever it compiled is closed when the test ends."""
    made = KINDS[request.param](tmp_path)
    yield made
    assert made.bench.num_open == 0


def row(value: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.full((1, 4), value, np.float32)


def call(value: float) -> Call:
    return Call(InferenceRequest("m", {"x": row(value)}, id=str(value)), {"x": row(value)}, 1)


async def answers(servable: Servable) -> list[float]:
    responses = await asyncio.gather(*(servable.submit(call(value)) for value in (1.0, 2.0, 3.0)))
    assert [each.id for each in responses] == ["1.0", "2.0", "3.0"]
    return [float(each.outputs["y"][0, 0]) for each in responses]


def test_it_honours_fields_that_exist(kind: Kind) -> None:
    assert kind.backend.honours <= FIELDS.keys() == SET.keys()


@pytest.mark.parametrize("field", SET)
def test_a_field_that_it_does_not_honour_is_refused_by_name(kind: Kind, field: str) -> None:
    if field in kind.backend.honours:
        assert FIELDS[field].is_asked(kind.source(SET[field]).message)
        return
    with pytest.raises(UnsupportedError) as caught:
        kind.source(SET[field])
    assert str(caught.value) == f"model 'm': this version does not honour '{field}'; {FIELDS[field].remedy}"


def test_a_field_that_no_config_has_is_refused_by_name(kind: Kind) -> None:
    with pytest.raises(InvalidArgumentError, match="max_batch\\b"):
        kind.source("max_batch: 8")


def test_its_needs_are_known_without_its_files(kind: Kind) -> None:
    source = kind.source()
    shutil.rmtree(kind.folder)
    assert kind.backend.needs(source) == kind.needs


def test_a_config_is_completed_and_nothing_compiled(kind: Kind) -> None:
    source = kind.source()
    written = ModelConfigMessage.FromString(source.message.SerializeToString())
    first, second = kind.backend.configure(source, 1), kind.backend.configure(source, 1)
    assert source.message == written
    assert first == second
    assert (first.name, list(first.inputs), list(first.outputs)) == ("m", ["x"], ["y"])
    assert first.message.input[0].dims == first.message.output[0].dims == [4]
    assert kind.bench.onnxruntime.loads == []


@pytest.mark.parametrize("method", ["configure", "build"])
@pytest.mark.parametrize(
    ("old", "new"), [("FP32", "INT64"), ("dims: 4", "dims: 5"), ('"x"', '"z"')], ids=["datatype", "shape", "name"]
)
def test_a_config_that_contradicts_what_it_describes_is_wrong(kind: Kind, method: str, old: str, new: str) -> None:
    config = kind.config
    if "input" not in config.partition("model_warmup")[0]:
        config = 'input { name: "x" data_type: TYPE_FP32 dims: 4 } ' + config
    source = kind.source(config.replace(old, new))
    with pytest.raises(InvalidArgumentError, match=r"\bm\b"):
        kind.backend.configure(source, 1) if method == "configure" else kind.build(source)


def test_a_build_tells_of_itself(kind: Kind) -> None:
    source = kind.source()
    build = kind.build(source)
    assert (build.version, build.source) == (1, source)
    assert build.config == kind.backend.configure(source, 1)
    assert set(build.precisions) <= set(build.config.units)
    assert (build.emulated, build.shortfall) == (frozenset(), "")
    assert f"{build}"
    build.close()


def test_a_build_knows_whether_another_would_be_the_same(kind: Kind) -> None:
    build = kind.build()
    assert build.is_current(kind.source())
    assert build.is_current(kind.source(f"{kind.config} version_policy {{ all {{ }} }}"))
    assert not build.is_current(kind.source(f"{kind.config} metric_tags {{ key: 'a' value: 'b' }}"))
    build.close()


async def test_a_build_after_another_leaves_that_serving(kind: Kind) -> None:
    first = kind.build()
    serving = kind.backend.assemble(first, kind.models)
    second = kind.build(kind.source(f"{kind.config} metric_tags {{ key: 'a' value: 'b' }}"), first)
    assert await answers(serving) == [2, 4, 6]
    successor = kind.backend.assemble(second, kind.models)
    await serving.close()
    assert await answers(successor) == [2, 4, 6]
    await successor.close()


def test_a_build_that_is_cancelled_before_it_starts_gives_up(kind: Kind) -> None:
    attempt = Attempt()
    attempt.give_up()
    with pytest.raises(UnavailableError, match="given up"):
        kind.backend.build(kind.source(), 1, None, attempt)


def test_a_build_that_is_cancelled_while_it_runs_gives_up(kind: Kind) -> None:
    attempt = Attempt()
    kind.when_building(attempt.give_up)
    with pytest.raises(UnavailableError, match="given up"):
        kind.backend.build(kind.source(), 1, None, attempt)
    assert attempt.is_given_up


def test_a_build_that_fails_leaves_nothing_behind(kind: Kind) -> None:
    def fail() -> None:
        raise InvalidArgumentError("the file is wrong")

    kind.when_building(fail)
    with pytest.raises(InvalidArgumentError, match="the file is wrong"):
        kind.build()


async def test_what_is_assembled_keeps_the_contract_of_servables(kind: Kind) -> None:
    servable = kind.backend.assemble(kind.build(), kind.models)
    assert await answers(servable) == [2, 4, 6]
    assert [each.outputs["y"][0, 0] async for each in servable.stream(call(4.0))] == [8]
    cancelled = servable.submit(call(5.0))
    cancelled.cancel()
    await asyncio.wait_for(servable.drain(), 10)
    assert servable.statistics.success.count >= 4
    assert servable.statistics.num_pending == 0
    servable.refuse()
    with pytest.raises(UnavailableError):
        await servable.submit(call(6.0))
    await asyncio.wait_for(servable.close(), 10)


async def test_a_build_that_cannot_be_assembled_is_still_its_callers(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servables that need no thread of their own are assembled without one."""
    build, start = kind.build(), threading.Thread.start
    started: list[threading.Thread] = []

    def only_one(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", only_one)
        try:
            servable = kind.backend.assemble(build, kind.models)
        except NoThreadError:
            servable = None
    if servable is None:
        build.close()
        for thread in started:
            thread.join(10)
            assert not thread.is_alive()
    else:
        await servable.close()
