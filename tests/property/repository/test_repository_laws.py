"""Whatever is loaded, broken, replaced and unloaded in whatever order: what is READY answers, and nothing leaks."""

import asyncio
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from support.examples import examples
from support.hand import dispatcher_of
from support.repositories import Bench, affine, write_model
from triune.core.errors import TriuneError
from triune.core.requests import InferenceRequest
from triune.core.servable import Call
from triune.repository.model import ModelState
from triune.repository.repository import Repository
from triune.repository.settings import ControlMode

_MODELS = ("a", "b")
_names = st.sampled_from(_MODELS)
_steps = st.one_of(
    st.tuples(st.just("write"), _names, st.integers(1, 3), st.integers(1, 9)),
    st.tuples(st.just("spoil"), _names, st.integers(1, 3)),
    st.tuples(st.just("count"), _names, st.integers(0, 3)),
    st.tuples(st.just("load"), _names),
    st.tuples(st.just("load"), _names),
    st.tuples(st.just("override"), _names, st.integers(1, 9)),
    st.tuples(st.just("unload"), _names),
    st.tuples(st.just("ask"), _names),
)


async def _take(repository: Repository, folder: Path, step: tuple[object, ...]) -> None:
    match step:
        case ("write", str(name), version, scale):
            write_model(folder, name, **{f"v{version}": affine(float(scale))})  # type: ignore[arg-type]
        case ("spoil", str(name), version):
            write_model(folder, name, **{f"v{version}": b"rubbish"})
        case ("count", str(name), count):
            write_model(folder, name, f"version_policy {{ all {{ }} }} instance_group {{ count: {count} }}")
        case ("load", str(name)):
            await repository.load(name)
        case ("override", str(name), scale):
            await repository.load(name, config_json="{}", files={"1/model.onnx": affine(float(scale))})  # type: ignore[arg-type]
        case ("unload", str(name)):
            await repository.unload(name)
        case _:
            for model in repository.loaded():
                x = {"x": np.ones((2, 4), np.float32)}
                answer = await model.servable.submit(Call(InferenceRequest(model.config.name, x), x, 2))
                assert 1 <= answer.outputs["y"][0, 0] <= 9


def _check_laws(repository: Repository) -> None:
    ready = {(each.name, each.version) for each in repository.index() if each.state is ModelState.READY}
    loaded = {(each.config.name, each.version) for each in repository.loaded()}
    assert ready == loaded
    for name in _MODELS:
        versions = repository.versions(name)
        assert {(name, version) for version in versions} == {each for each in ready if each[0] == name}
        if versions:
            assert repository.get(name).version == max(versions)
            assert repository.get(name) is repository.get(name, max(versions))


async def _play(folder: Path, groups: list[list[tuple[object, ...]]]) -> None:
    bench = Bench(num_cores=1)
    repository = bench.repository(folder, mode=ControlMode.EXPLICIT)
    await repository.open()
    try:
        for group in groups:
            # The steps of a group are taken at once.
            results = await asyncio.gather(*(_take(repository, folder, step) for step in group), return_exceptions=True)
            assert all(each is None or isinstance(each, TriuneError) for each in results), results
            _check_laws(repository)
        async with asyncio.timeout(60):
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0.001)
        assert bench.num_open == sum(len(dispatcher_of(each).workers) for each in repository.loaded())
    finally:
        await repository.close()
    assert bench.num_open == 0
    assert repository.loaded() == []


@examples(60)
@given(st.lists(st.lists(_steps, min_size=1, max_size=4), max_size=12))
def test_what_is_ready_answers_and_nothing_leaks(groups: list[list[tuple[object, ...]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in _MODELS:
            write_model(Path(folder), name, v1=affine(1))
        asyncio.run(_play(Path(folder), groups))
