"""Models that are made of others: in which order they come, go and come back."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from support.ensembles import chain, ensemble, write_ensemble
from support.repositories import Bench, affine, write_model
from triune.config.settings import ModelSettings
from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, TriuneError, UnavailableError
from triune.core.requests import InferenceRequest
from triune.core.servable import Call
from triune.repository.model import ModelState
from triune.repository.repository import Repository
from triune.repository.settings import ControlMode

READY, UNAVAILABLE = ModelState.READY, ModelState.UNAVAILABLE
BATCH = "max_batch_size: 8 "
ALL = BATCH + "version_policy { all { } }"


@asynccontextmanager
async def opened(
    path: Path, mode: ControlMode = ControlMode.NONE, bench: Bench | None = None, **options: object
) -> AsyncIterator[Repository]:
    bench = bench or Bench()
    repository = bench.repository(path, mode=mode, **options)
    await repository.open()
    try:
        yield repository
    finally:
        await asyncio.wait_for(repository.close(), 60)
        assert bench.num_open == 0, "an executable was not closed"


async def answer(repository: Repository, name: str, value: float = 1.0, version: int | None = None) -> float:
    x = {"x": np.full((1, 4), value, np.float32)}
    loaded = repository.get(name, version)
    return float((await loaded.servable.submit(Call(InferenceRequest(name, x), x, 1))).outputs["y"][0, 0])


def reasons(repository: Repository) -> dict[str, tuple[ModelState | None, str]]:
    return {each.name: (each.state, each.reason) for each in repository.index()}


def put(path: Path, name: str, *scales: float, config: str = ALL) -> None:
    write_model(path, name, config, **{f"v{version}": affine(scale) for version, scale in enumerate(scales, 1)})


async def test_all_that_it_is_made_of_comes_first(tmp_path: Path) -> None:
    put(tmp_path, "z2", 2)
    put(tmp_path, "z3", 3, 5)
    write_ensemble(tmp_path, "outer", chain("inner", "z2", "z3:1"))
    write_ensemble(tmp_path, "inner", chain("z2", "z3"))
    async with opened(tmp_path) as repository:
        assert [(each.state, each.reason) for each in repository.index()] == [(READY, "")] * 5
        assert await answer(repository, "inner") == 10
        assert await answer(repository, "outer") == 60
        assert repository.is_every_model_ready()


async def test_one_that_is_missing_is_named(tmp_path: Path) -> None:
    put(tmp_path, "m", 2)
    write_model(tmp_path, "broken", v1=b"no model")
    write_ensemble(tmp_path, "without", chain("m", "nowhere", "nothing"))
    write_ensemble(tmp_path, "of_broken", chain("m", "broken"))
    write_ensemble(tmp_path, "of_version", chain("m:7"))
    write_ensemble(tmp_path, "of_default_version", chain("m:0"))
    write_ensemble(tmp_path, "of_without", chain("without"))
    async with opened(tmp_path) as repository:
        told = {name: reason for name, (state, reason) in reasons(repository).items() if state is UNAVAILABLE}
    words = "ensemble without contains models that are not available or ambiguous: nothing, nowhere"
    assert told["without"] == words
    assert told["of_broken"].startswith(
        "ensemble 'of_broken' depends on 'broken' which has no loaded version. Model 'broken' loading failed with "
        "error: version 1: "
    )
    assert told["of_version"].startswith("ensemble 'of_version' depends on 'm' whose required version 7 is not loaded")
    assert "whose required version 0 is not loaded" in told["of_default_version"]
    assert told["of_without"].endswith(f"Model 'without' loading failed with error: {words}")


@pytest.mark.parametrize("mode", [ControlMode.NONE, ControlMode.EXPLICIT])
async def test_circles_are_told_and_end(tmp_path: Path, mode: ControlMode) -> None:
    write_ensemble(tmp_path, "a", chain("b"))
    write_ensemble(tmp_path, "b", chain("c"))
    write_ensemble(tmp_path, "c", chain("a"))
    write_ensemble(tmp_path, "self", chain("self"))
    write_ensemble(tmp_path, "of_a", chain("a"))
    startup = {"startup_models": ["*"]} if mode is ControlMode.EXPLICIT else {}
    async with opened(tmp_path, mode, **startup) as repository:
        told = {name: reason for name, (_, reason) in reasons(repository).items()}
    assert told["self"] == "circular dependency between ensembles: self -> ... -> self -> self"
    assert told["a"] == "circular dependency between ensembles: a -> ... -> c -> a"
    assert told["b"] == "circular dependency between ensembles: b -> ... -> a -> b"
    assert "circular dependency" in told["of_a"]


async def test_a_circle_that_is_asked_for_and_then_opened(tmp_path: Path) -> None:
    write_ensemble(tmp_path, "a", chain("b"))
    write_ensemble(tmp_path, "b", chain("a"))
    put(tmp_path, "m", 3)
    async with opened(tmp_path, ControlMode.EXPLICIT) as repository:
        for _ in range(2):
            with pytest.raises(InvalidArgumentError, match="circular dependency between ensembles: a -> ... -> b -> a"):
                await repository.load("a")
        write_ensemble(tmp_path, "b", chain("m"))
        await repository.load("b")
        assert await answer(repository, "a") == 3


async def test_loading_it_loads_what_it_is_made_of_and_unloading_it_may_unload_that(tmp_path: Path) -> None:
    for name in ("m", "asked", "shared"):
        put(tmp_path, name, 2)
    write_ensemble(tmp_path, "e", chain("m", "asked", "shared"))
    write_ensemble(tmp_path, "other", chain("shared"))
    async with opened(tmp_path, ControlMode.EXPLICIT) as repository:
        await repository.load("asked")
        await repository.load("other")
        await repository.load("e")
        assert await answer(repository, "e") == 8
        await repository.unload("e")
        assert {name for name, (state, _) in reasons(repository).items() if state is READY} == {
            "m", "asked", "shared", "other",
        }  # fmt: skip
        await repository.load("e")
        await repository.unload("e", unload_dependents=True)
        assert {name for name, (state, _) in reasons(repository).items() if state is READY} == {
            "asked", "shared", "other",
        }  # fmt: skip
        await repository.load("e")
        assert await answer(repository, "e") == 8


async def test_loading_it_loads_what_has_changed_at_any_depth(tmp_path: Path) -> None:
    put(tmp_path, "leaf", 2.0)
    put(tmp_path, "other", 3.0)
    write_ensemble(tmp_path, "inner", chain("leaf"))
    write_ensemble(tmp_path, "middle", chain("inner", "other"))
    write_ensemble(tmp_path, "outer", chain("middle"))
    async with opened(tmp_path, ControlMode.EXPLICIT) as repository:
        await repository.load("outer")
        assert await answer(repository, "outer") == 6
        loaded = repository.get("other", None)
        put(tmp_path, "leaf", 5.0)
        await repository.load("outer")
        assert await answer(repository, "outer") == 15
        assert await answer(repository, "inner") == 5
        assert repository.get("other", None) is loaded, "what has not changed goes on"


async def test_a_startup_model_brings_what_it_is_made_of(tmp_path: Path) -> None:
    put(tmp_path, "m", 3)
    put(tmp_path, "not_asked", 2)
    write_ensemble(tmp_path, "e", chain("m", "m"))
    async with opened(tmp_path, ControlMode.EXPLICIT, startup_models=["e"]) as repository:
        assert await answer(repository, "e") == 9
        assert reasons(repository)["not_asked"] == (None, "")


async def test_it_goes_with_what_it_is_made_of_and_comes_back_with_it(tmp_path: Path) -> None:
    put(tmp_path, "m", 3)
    write_ensemble(tmp_path, "e", chain("m"))
    write_ensemble(tmp_path, "of_e", chain("e"))
    async with opened(tmp_path, ControlMode.EXPLICIT, startup_models=["of_e"]) as repository:
        await repository.unload("m")
        assert reasons(repository)["e"] == (
            UNAVAILABLE,
            "unloaded: ensemble 'e' depends on 'm' which has no loaded version.",
        )
        assert reasons(repository)["of_e"][1].startswith("unloaded: ensemble 'of_e' depends on 'e' which has no loaded")
        assert repository.is_every_model_ready(), "what was unloaded on request is not missed (Triton's rule)"
        with pytest.raises(UnavailableError, match="depends on 'm' which has no loaded version"):
            repository.get("e")
        await repository.load("m")
        assert await answer(repository, "of_e") == 3
        await repository.unload("of_e")
        await repository.unload("m")
        await repository.load("m")
        assert [reasons(repository)[name][0] for name in ("e", "of_e")] == [READY, UNAVAILABLE]


async def test_a_model_that_is_replaced_takes_its_ensembles_along(tmp_path: Path) -> None:
    put(tmp_path, "m", 3)
    write_ensemble(tmp_path, "e", chain("m", "m"))
    write_ensemble(tmp_path, "alone", chain("m:1"))
    async with opened(tmp_path, ControlMode.EXPLICIT, startup_models=["e", "alone"]) as repository:
        before = repository.get("e")
        await repository.load("m")
        assert repository.get("e") is before, "nothing has changed"
        put(tmp_path, "m", 3, 5)
        await repository.load("m")
        assert await answer(repository, "e") == 25
        assert await answer(repository, "alone") == 3
        assert repository.get("e") is not before
        write_model(tmp_path, "m", ALL, v1=affine(3, ("batch", 6)), v2=affine(3, ("batch", 6)))
        await repository.load("m")
        state, reason = reasons(repository)["e"]
        assert state is UNAVAILABLE
        assert "in ensemble e, ensemble tensor x: inconsistent shape: [-1,4] is inferred from model e while " in reason
        assert not repository.is_every_model_ready()
        put(tmp_path, "m", 3, 7)
        await repository.load("m")
        assert await answer(repository, "e") == 49
        assert repository.is_every_model_ready()


@pytest.mark.parametrize("is_replaced", [True, False])
async def test_requests_under_way_finish_with_the_models_that_they_began_with(
    tmp_path: Path, is_replaced: bool
) -> None:
    threads = ALL + "instance_group { count: 2 }"
    put(tmp_path, "first", 2, config=threads)
    put(tmp_path, "second", 3, config=threads)
    write_ensemble(tmp_path, "e", chain("first", "second"))
    bench, release = Bench(), threading.Event()
    async with opened(tmp_path, ControlMode.EXPLICIT, bench=bench, startup_models=["e"]) as repository:
        for executable in bench.onnxruntime.executables:
            executable.run = partial(_after, release, executable.run)  # pyright: ignore[reportAttributeAccessIssue]
        started = [asyncio.ensure_future(answer(repository, "e", value)) for value in (1.0, 2.0)]
        before = repository.get("second")
        while before.holds.num < 2:
            await asyncio.sleep(0)
        put(tmp_path, "second", 5, config=threads)
        change = asyncio.ensure_future(repository.load("second") if is_replaced else repository.unload("second"))
        while repository.versions("second") and repository.get("second") is before:
            await asyncio.sleep(0)
        release.set()
        assert await asyncio.gather(*started) == [6, 12]
        await change
        assert before.holds.num == 0
        await repository.load("second")
        assert await answer(repository, "e") == 10


@pytest.mark.parametrize("end", ["unload", "replace", "drain"])
async def test_what_waits_for_a_batch_waits_no_longer_once_none_can_join(tmp_path: Path, end: str) -> None:
    delayed = ALL + "dynamic_batching { max_queue_delay_microseconds: 3600000000 preferred_batch_size: [8] }"
    put(tmp_path, "first", 2)
    put(tmp_path, "second", 3, 5, config=delayed)
    write_ensemble(tmp_path, "e", chain("first", "second"))
    async with opened(tmp_path, ControlMode.EXPLICIT, startup_models=["e"]) as repository:
        waiting = {
            asyncio.ensure_future(answer(repository, "second", version=1)): 3,
            asyncio.ensure_future(answer(repository, "second", version=2)): 5,
            asyncio.ensure_future(answer(repository, "e")): 10,
        }
        second = [repository.get("second", version).statistics for version in (1, 2)]
        while [each.num_waiting for each in second] != [1, 2]:
            await asyncio.sleep(0)
        if end == "replace":
            put(tmp_path, "second", 7, 7)
        ends = {"unload": repository.unload, "replace": repository.load}
        await asyncio.wait_for(ends[end]("second") if end in ends else repository.drain(), 60)
        done, _ = await asyncio.wait(waiting, timeout=60)
        assert {each: each.result() for each in done} == waiting


def _after(
    release: threading.Event,
    run: Callable[[Mapping[str, Array], Sequence[str]], dict[str, Array]],
    inputs: Mapping[str, Array],
    outputs: Sequence[str],
) -> dict[str, Array]:
    assert release.wait(60)
    return run(inputs, outputs)


async def test_polling_follows(tmp_path: Path) -> None:
    put(tmp_path, "m", 3)
    write_ensemble(tmp_path, "e", chain("m"))
    async with opened(tmp_path, ControlMode.POLL, poll_seconds=1e6) as repository:
        (tmp_path / "m" / "config.pbtxt").rename(tmp_path / "kept")
        (tmp_path / "m").rename(tmp_path.parent / f"{tmp_path.name}-away")
        await repository.poll()
        assert reasons(repository)["e"] == (
            UNAVAILABLE,
            "unloaded: ensemble 'e' depends on 'm' which has no loaded version.",
        )
        await repository.poll()
        (tmp_path.parent / f"{tmp_path.name}-away").rename(tmp_path / "m")
        (tmp_path / "kept").rename(tmp_path / "m" / "config.pbtxt")
        await repository.poll()
        assert await answer(repository, "e") == 3
        put(tmp_path, "n", 5)
        write_ensemble(tmp_path, "e", chain("m", "n"))
        await repository.poll()
        assert await answer(repository, "e") == 15


async def test_a_config_of_a_load_request(tmp_path: Path) -> None:
    put(tmp_path, "m", 3)
    put(tmp_path, "n", 5)
    write_ensemble(tmp_path, "e", chain("m"))
    async with opened(tmp_path, ControlMode.EXPLICIT, startup_models=["e"]) as repository:
        config = repository.get("e").config.json.decode().replace('"model_name":"m"', '"model_name":"n"')
        await repository.load("e", config_json=config)
        assert await answer(repository, "e") == 5
        with pytest.raises(InvalidArgumentError, match="load failed for model 'e': ensemble e contains models"):
            await repository.load("e", config_json=config.replace('"model_name":"n"', '"model_name":"none"'))
        assert await answer(repository, "e") == 5, "what served goes on"
        await repository.load("e", config_json=config, files={"1/nothing": b""})
        await repository.unload("n")
        await repository.load("n")
        assert await answer(repository, "e") == 5


async def test_answers_that_were_kept_go_with_the_model_that_gave_them(tmp_path: Path) -> None:
    put(tmp_path, "m", 3)
    write_ensemble(tmp_path, "e", chain("m", more="response_cache { enable: true }"))
    models = ModelSettings(cache_bytes=1 << 20)
    async with opened(tmp_path, ControlMode.EXPLICIT, startup_models=["e"], models=models) as repository:
        assert await answer(repository, "e") == 3
        await asyncio.sleep(0)
        assert await answer(repository, "e") == 3
        assert repository.get("e").statistics.cache_hit.count == 1
        put(tmp_path, "m", 5)
        await repository.load("m")
        assert await answer(repository, "e") == 5


async def test_a_load_under_way_may_be_given_up(tmp_path: Path) -> None:
    put(tmp_path, "m", 3)
    write_ensemble(tmp_path, "e", chain("m"))
    async with opened(tmp_path, ControlMode.EXPLICIT) as repository:
        loading = asyncio.ensure_future(repository.load("e"))
        while reasons(repository)["e"][0] is not ModelState.LOADING:
            await asyncio.sleep(0)
        await repository.unload("e")
        with pytest.raises(TriuneError, match="it was unloaded meanwhile"):
            await loading
        assert reasons(repository)["e"][0] is UNAVAILABLE
        await repository.load("e")
        assert await answer(repository, "e") == 3


def test_check(tmp_path: Path) -> None:
    put(tmp_path, "m", 3)
    write_model(tmp_path, "broken", v1=b"no model")
    write_ensemble(tmp_path, "good", chain("m", "m"))
    write_ensemble(tmp_path, "of_good", chain("good"))
    write_ensemble(tmp_path, "a", chain("b"))
    write_ensemble(tmp_path, "b", chain("a"))
    write_ensemble(tmp_path, "of_broken", chain("broken"))
    write_ensemble(tmp_path, "version", chain("m:2"))
    write_ensemble(tmp_path, "wrong", ensemble([("m", {"x": "x"}, {"z": "y"})]))
    checks = {each.name: each for each in Bench().repository(tmp_path).check()}
    assert not checks["good"].problems + checks["of_good"].problems + checks["m"].problems
    assert checks["good"].backend == "ensemble"
    assert "circular dependency" in "".join(checks["a"].problems)
    assert "circular dependency" in "".join(checks["b"].problems)
    assert "depends on 'broken', which would not load" in checks["of_broken"].problems[0]
    assert "required version 2 is not loaded" in checks["version"].problems[0]
    assert "mapped from non-existing output z in model m (step 0)" in checks["wrong"].problems[0]
