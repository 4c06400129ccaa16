"""Whatever is loaded, unloaded and changed, one after another or at once: what is made of others serves if they do."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from support.ensembles import chain, write_ensemble
from support.examples import examples
from support.repositories import Bench, affine, write_model
from triune.core.errors import TriuneError
from triune.core.requests import InferenceRequest
from triune.repository.model import ModelState
from triune.repository.repository import ControlMode, Repository

PARTS = {
    "inner": ("a", "b"),
    "outer": ("inner", "a"),
    "single": ("b",),
    "circle": ("circle2",),
    "circle2": ("circle", "a"),
}
NAMES = ("a", "b", *PARTS)

actions = st.lists(
    st.one_of(
        st.tuples(st.just("load"), st.sampled_from(NAMES)),
        st.tuples(st.just("unload"), st.sampled_from(NAMES), st.booleans()),
        st.tuples(st.just("change"), st.sampled_from(("a", "b")), st.sampled_from((2, 3, 5))),
        st.tuples(st.just("break"), st.sampled_from(("a", "b"))),
        st.tuples(st.just("ask"), st.sampled_from(NAMES)),
        st.tuples(st.just("wait")),
    ),
    max_size=16,
)


@examples(40)
@given(script=actions)
def test_what_is_made_of_others_serves_if_they_do(script: list[tuple[Any, ...]]) -> None:
    with TemporaryDirectory() as folder:
        asyncio.run(asyncio.wait_for(play(Path(folder), script), 60))


async def play(folder: Path, script: list[tuple[Any, ...]]) -> None:
    for name in ("a", "b"):
        write_model(folder, name, "max_batch_size: 4", v1=affine(2))
    for name, parts in PARTS.items():
        write_ensemble(folder, name, chain(*parts))
    bench = Bench()
    repository = bench.repository(folder, mode=ControlMode.EXPLICIT)
    await repository.open()
    under_way: list[asyncio.Future[Any]] = []
    for action in script:
        match action:
            case ("load", name):
                under_way.append(asyncio.ensure_future(repository.load(name)))
            case ("unload", name, with_parts):
                under_way.append(asyncio.ensure_future(repository.unload(name, unload_dependents=with_parts)))
            case ("change", name, scale):
                write_model(folder, name, v1=affine(scale))
            case ("break", name):
                (folder / name / "1" / "model.onnx").write_bytes(b"no model")
            case ("ask", name):
                under_way.append(asyncio.ensure_future(ask(repository, name)))
            case _:
                await finish(under_way)
    await finish(under_way)
    states = {each.name: each for each in repository.index()}
    ready = {name for name, each in states.items() if each.state is ModelState.READY}
    assert not {"circle", "circle2"} & ready
    assert all(each.state is not ModelState.LOADING for each in states.values()), "a load was left half way"
    for name in sorted(ready & PARTS.keys()):
        assert set(PARTS[name]) <= ready, "it serves without what it is made of"
        assert await ask(repository, name) == await product(repository, name)
    for name in PARTS:
        if states[name].state is ModelState.UNAVAILABLE and set(PARTS[name]) <= ready:
            assert states[name].reason == "unloaded", "what it is made of is there"
    await asyncio.wait_for(repository.close(), 60)
    assert bench.num_open == 0, "an executable was not closed"


async def ask(repository: Repository, name: str) -> float:
    x = {"x": np.ones((1, 4), np.float32)}
    return float((await repository.get(name).submit(InferenceRequest(name, x))).outputs["y"][0, 0])


async def product(repository: Repository, name: str) -> float:
    if name not in PARTS:
        return await ask(repository, name)
    return float(np.prod([await product(repository, part) for part in PARTS[name]]))


async def finish(under_way: list[asyncio.Future[Any]]) -> None:
    for each in await asyncio.gather(*under_way, return_exceptions=True):
        assert not isinstance(each, BaseException) or isinstance(each, TriuneError), repr(each)
    under_way.clear()
