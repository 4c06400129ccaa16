"""What every backend owes: which fields it supports, what it needs, how it configures, builds and assembles."""

import asyncio
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from contract.backends.kinds import KINDS, Kind
from triune.backends.attempt import Attempt
from triune.config.unsupported import FIELDS
from triune.core.errors import InvalidArgumentError, UnavailableError, UnsupportedError
from triune.core.threads import NoThreadError
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage

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


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kind]:
    """A backend of each kind. Whatever it compiled is closed when the test ends."""
    made = KINDS[request.param](tmp_path, monkeypatch)
    yield made
    assert made.num_open() == 0


def test_it_supports_fields_that_exist(kind: Kind) -> None:
    assert kind.backend.supports <= FIELDS.keys() == SET.keys()


@pytest.mark.parametrize("field", SET)
def test_a_field_that_it_does_not_support_is_refused_by_name(kind: Kind, field: str) -> None:
    if field in kind.backend.supports:
        assert FIELDS[field].is_asked(kind.source(SET[field]).message)
        return
    with pytest.raises(UnsupportedError) as caught:
        kind.source(SET[field])
    assert str(caught.value) == f"model 'm': this version does not support '{field}'; {FIELDS[field].remedy}"


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
    assert first.name == "m"
    inputs, outputs = kind.tensors
    assert (list(first.inputs), list(first.outputs)) == (list(inputs), list(outputs))
    assert {each.name: each.dims for each in first.message.input} == inputs
    assert {each.name: each.dims for each in first.message.output} == outputs
    assert not kind.loads()


@pytest.mark.parametrize("method", ["configure", "build"])
@pytest.mark.parametrize("what", ["datatype", "shape", "name"])
def test_a_config_that_contradicts_what_it_describes_is_wrong(kind: Kind, method: str, what: str) -> None:
    config = kind.config
    if "input" not in config.partition("model_warmup")[0]:
        config = f"{kind.input} {config}"
    source = kind.source(config.replace(*kind.contradictions[what]))
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
    assert await kind.answers(serving) == [1, 2, 3]
    successor = kind.backend.assemble(second, kind.models)
    await serving.close()
    assert await kind.answers(successor) == [1, 2, 3]
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
    assert await kind.answers(servable) == [1, 2, 3]
    cancelled = asyncio.create_task(kind.answer(servable, 4))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait_for(servable.drain(), 60)
    assert servable.statistics.success.count >= 3
    assert servable.statistics.num_pending == 0
    servable.refuse()
    with pytest.raises(UnavailableError):
        await kind.answer(servable, 5)
    await asyncio.wait_for(servable.close(), 60)


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
            thread.join(60)
            assert not thread.is_alive()
    else:
        await servable.close()
