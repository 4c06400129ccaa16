"""The repository as the server sees it: control modes, states, replacing models under requests."""

import asyncio
import gc
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from support.hand import dispatcher_of
from support.repositories import WARM_UP, Bench, affine, turning, write_model
from triune.app import make_repository
from triune.config.limits import ModelLimits
from triune.config.settings import ModelSettings
from triune.core.clock import VirtualClock
from triune.core.errors import (
    InvalidArgumentError,
    NotFoundError,
    PayloadTooLargeError,
    TriuneError,
    UnavailableError,
    UnsupportedError,
)
from triune.core.requests import InferenceRequest, InferenceResponse, Parameter
from triune.core.runtime import NO_OPTIONS
from triune.core.servable import Call
from triune.core.threads import is_work_left
from triune.core.units import Unit
from triune.frontends.kserve.descriptions import statistics_with_energy
from triune.repository.failure import LoadFailedError
from triune.repository.finding import Finder
from triune.repository.model import IndexEntry, ModelState
from triune.repository.repository import Repository
from triune.repository.settings import ControlMode, RepositorySettings
from triune.runtimes.onnxruntime import OnnxRuntime
from triune.scheduling.models import LoadedVersion

READY, UNAVAILABLE = ModelState.READY, ModelState.UNAVAILABLE
ALL = "version_policy { all { } }"


@asynccontextmanager
async def opened(bench: Bench, *folders: Path, **options: object) -> AsyncIterator[Repository]:
    repository = bench.repository(*folders, **options)
    await repository.open()
    try:
        yield repository
    finally:
        await repository.close()
        assert bench.num_open == 0, "an executable was not closed"


def start(repository: Repository, name: str, version: int | None = None) -> asyncio.Future[InferenceResponse]:
    x = {"x": np.ones((1, 4), np.float32)}
    return repository.get(name, version).servable.submit(Call(InferenceRequest(name, x), x, 1))


async def scale_of(repository: Repository, name: str, version: int | None = None) -> float:
    """What the model multiplies with: which of its files answers."""
    return float((await start(repository, name, version)).outputs["y"][0, 0])


def states(repository: Repository) -> dict[tuple[str, int | None], ModelState | None]:
    return {(each.name, each.version): each.state for each in repository.index()}


async def test_a_load_that_failed_leaves_nothing_to_the_garbage_collector(tmp_path: Path) -> None:
    write_model(tmp_path, "bad", ALL, v1=b"not a model", v2=affine())
    gc.collect()
    gc.disable()
    try:
        async with opened(Bench(), tmp_path) as repository:
            assert not repository.is_every_model_ready()
            # What was built and read is referred to by frames, and these by an error's traceback.
            left = [each for each in gc.get_objects() if isinstance(each, (TriuneError, LoadFailedError))]
            assert [each for each in left if each.__traceback__ is not None] == []
    finally:
        gc.enable()


async def test_no_model_is_unknown_before_the_folders_were_read(tmp_path: Path) -> None:
    write_model(tmp_path, "good", v1=affine(2))
    repository = Bench().repository(tmp_path)
    for name in ("good", "unknown"):
        with pytest.raises(UnavailableError, match="the model repository has not been read yet; try again in a moment"):
            repository.get(name)
        assert not repository.is_ready(name)
    await repository.open()
    assert repository.is_ready("good")
    with pytest.raises(NotFoundError):
        repository.get("unknown")
    await repository.close()


async def test_none_serves_everything_and_broken_models_stop_nobody(tmp_path: Path) -> None:
    write_model(tmp_path, "good", v1=affine(2), v2=affine(3))
    write_model(tmp_path, "bad_config", "input [\n  { nam: 'x' } ]", v1=affine())
    write_model(tmp_path, "bad_file", v7=b"not a model")
    write_model(tmp_path, "empty")
    write_model(tmp_path, "sequence", "sequence_batching { }", v1=affine())
    async with opened(Bench(), tmp_path) as repository:
        assert repository.is_open
        assert await scale_of(repository, "good") == 3
        reasons = {each.name: each for each in repository.index()}
        assert reasons["good"] == IndexEntry("good", 2, READY)
        assert reasons["bad_config"].version is None
        assert reasons["bad_config"].state is UNAVAILABLE
        assert 'bad_config/config.pbtxt:2:5: ModelInput has no field "nam"' in reasons["bad_config"].reason
        assert reasons["bad_file"].version == 7
        assert "not an ONNX model" in reasons["bad_file"].reason
        assert "no version" in reasons["empty"].reason
        assert "sequence_batching" in reasons["sequence"].reason
        assert [each.name for each in repository.index(is_ready_only=True)] == ["good"]
        assert not repository.is_every_model_ready()
        assert [each.config.name for each in repository.loaded()] == ["good"]
        assert repository.versions("good") == [2]
        assert repository.versions("bad_file") == []
    assert not repository.is_open


async def test_errors_say_state_and_reason(tmp_path: Path) -> None:
    write_model(tmp_path, "good", ALL, v1=affine(), v3=affine())
    write_model(tmp_path, "bad", v7=b"not a model")
    async with opened(Bench(), tmp_path) as repository:
        with pytest.raises(NotFoundError, match="Request for unknown model: 'ghost' is not found"):
            repository.get("ghost")
        with pytest.raises(NotFoundError, match="'good' version 2 is not found; its versions are 1, 3"):
            repository.get("good", 2)
        with pytest.raises(UnavailableError, match="'bad' has no available versions: version 7 is UNAVAILABLE: .*ONNX"):
            repository.get("bad")
        with pytest.raises(UnavailableError, match="'bad' version 7 is not at ready state: .*UNAVAILABLE: .*ONNX"):
            repository.get("bad", 7)
        assert repository.get("good").version == 3
        assert repository.get("good", 1).version == 1
        assert repository.is_ready("good")
        assert repository.is_ready("good", 1)
        assert not repository.is_ready("bad")
        with pytest.raises(NotFoundError):
            repository.is_ready("ghost")
        with pytest.raises(NotFoundError):
            repository.is_ready("good", 2)


@pytest.mark.parametrize(
    ("mode", "words"), [(ControlMode.NONE, "mode is none"), (ControlMode.POLL, "polling is enabled")]
)
async def test_load_and_unload_need_explicit_control(tmp_path: Path, mode: ControlMode, words: str) -> None:
    write_model(tmp_path, "m", v1=affine())
    async with opened(Bench(), tmp_path, mode=mode) as repository:
        for call in (repository.load("m"), repository.unload("m")):
            with pytest.raises(UnavailableError, match=f"explicit model load / unload is not allowed if .*{words}"):
                await call
        assert repository.is_ready("m")


async def test_explicit_loads_what_it_is_told(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_model(tmp_path, name, v1=affine())
    async with opened(Bench(), tmp_path, mode=ControlMode.EXPLICIT, startup_models=["a", "ghost"]) as repository:
        assert states(repository) == {("a", 1): READY, ("b", None): None, ("ghost", None): UNAVAILABLE}
        assert not repository.is_every_model_ready()
        with pytest.raises(UnavailableError, match="'b' has no available versions: not loaded; load it first"):
            repository.get("b")
        assert not repository.is_ready("b")
        await repository.load("b")
        assert repository.is_ready("b")
        await repository.unload("a")
        assert repository.index()[0] == IndexEntry("a", 1, UNAVAILABLE, "unloaded")
        with pytest.raises(UnavailableError, match="'a' has no available versions: version 1 is UNAVAILABLE: unloaded"):
            repository.get("a")
        await repository.unload("a")
        await repository.load("a")
        assert await scale_of(repository, "a") == 2


async def test_explicit_starts_empty_or_with_all(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_model(tmp_path, name, v1=affine())
    async with opened(Bench(), tmp_path, mode=ControlMode.EXPLICIT) as repository:
        assert repository.loaded() == []
        assert repository.is_every_model_ready()
    async with opened(Bench(), tmp_path, mode=ControlMode.EXPLICIT, startup_models=["*"]) as repository:
        assert len(repository.loaded()) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"mode": ControlMode.EXPLICIT, "startup_models": ["*", "a"]},
        {"mode": ControlMode.NONE, "startup_models": ["a"]},
        {"mode": ControlMode.POLL, "poll_seconds": 0},
    ],
)
def test_options_that_contradict_each_other(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError):
        Bench().repository(tmp_path, **options)


async def test_a_repository_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="cannot be read"):
        await Bench().repository(tmp_path / "nowhere").open()


@pytest.mark.parametrize("name", ["ghost", "", "..", "../m", "a/b"])
async def test_loading_what_does_not_exist(tmp_path: Path, name: str) -> None:
    write_model(tmp_path, "m", v1=affine())
    async with opened(Bench(), tmp_path / ".." / tmp_path.name, mode=ControlMode.EXPLICIT) as repository:
        with pytest.raises(NotFoundError if name == "ghost" else InvalidArgumentError):
            await repository.load(name)
        for never_loaded in (name, "m"):
            await repository.unload(never_loaded)
        assert states(repository) == {("m", None): None}


async def test_a_model_in_two_repositories_is_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_model(tmp_path / folder, "twin", v1=affine())
        write_model(tmp_path / folder, f"only_{folder}", v1=affine())
    async with opened(Bench(), tmp_path / "a", tmp_path / "b") as repository:
        assert [(each.name, each.state) for each in repository.index()] == [
            ("only_a", READY),
            ("only_b", READY),
            ("twin", UNAVAILABLE),
        ]
        assert "two or more" in repository.index()[2].reason
    async with opened(Bench(), tmp_path / "a", tmp_path / "b", mode=ControlMode.EXPLICIT) as repository:
        with pytest.raises(InvalidArgumentError, match="not unique"):
            await repository.load("twin")
        assert repository.index()[2].state is UNAVAILABLE


async def test_one_bad_version_spoils_the_load_but_not_what_serves(tmp_path: Path) -> None:
    write_model(tmp_path, "m", ALL, v1=affine(2))
    bench = Bench()
    async with opened(bench, tmp_path, mode=ControlMode.EXPLICIT, startup_models=["*"]) as repository:
        write_model(tmp_path, "m", v1=affine(5), v2=affine(3), v3=b"rubbish")
        with pytest.raises(InvalidArgumentError, match="load failed for model 'm': version 3: .*not an ONNX model"):
            await repository.load("m")
        assert await scale_of(repository, "m") == 2
        assert states(repository) == {("m", 1): READY, ("m", 2): UNAVAILABLE, ("m", 3): UNAVAILABLE}
        assert "because the model failed to load as a whole" in repository.index()[1].reason
        assert bench.num_open == 1
        shutil.rmtree(tmp_path / "m/3")
        await repository.load("m")
        assert await scale_of(repository, "m") == 3
        assert await scale_of(repository, "m", 1) == 5
        assert repository.is_every_model_ready()


@pytest.mark.parametrize("config", ["nme: 'x'", "sequence_batching { }", "max_batch_size: -1", "backend: 'tensorrt'"])
async def test_a_failed_reload_leaves_the_old_one(tmp_path: Path, config: str) -> None:
    write_model(tmp_path, "m", v1=affine(2))
    async with opened(Bench(), tmp_path, mode=ControlMode.EXPLICIT, startup_models=["m"]) as repository:
        before = repository.get("m")
        (tmp_path / "m/config.pbtxt").write_text(config)
        with pytest.raises((InvalidArgumentError, UnsupportedError), match="'m'"):
            await repository.load("m")
        assert repository.get("m") is before
        assert repository.is_every_model_ready()
        assert await scale_of(repository, "m") == 2


async def hold(bench: Bench) -> tuple[asyncio.Event, threading.Event]:
    """Make the newest executable stop in its next run. Returns: it has begun; let it go on."""
    loop, begun, release = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    executable = bench.onnxruntime.executables[-1]
    run = executable.run

    def held(*args: object) -> object:
        loop.call_soon_threadsafe(begun.set)
        assert release.wait(60)
        return run(*args)

    executable.run = held
    return begun, release


SLOW = "instance_group { count: 2 }"


async def test_a_reload_swaps_at_once_and_the_old_one_finishes(tmp_path: Path) -> None:
    write_model(tmp_path, "m", v1=affine(2, ["b", "n"]))
    bench = Bench()
    async with opened(bench, tmp_path, mode=ControlMode.EXPLICIT, startup_models=["m"]) as repository:
        begun, release = await hold(bench)
        old_executable = bench.onnxruntime.executables[-1]
        old_answer = start(repository, "m")
        await begun.wait()
        write_model(tmp_path, "m", v1=affine(3, ["b", "n"]))
        await repository.load("m")
        assert await scale_of(repository, "m") == 3
        assert not old_answer.done()
        assert not old_executable.is_closed
        release.set()
        assert float((await old_answer).outputs["y"][0, 0]) == 2
        await eventually(lambda: old_executable.is_closed)


async def test_requests_never_miss_a_model_that_is_reloaded(tmp_path: Path) -> None:
    write_model(tmp_path, "m", v1=affine(1, ["b", "n"]))
    seen: list[float] = []
    async with opened(Bench(), tmp_path, mode=ControlMode.EXPLICIT, startup_models=["m"]) as repository:

        async def ask() -> None:
            while not done:
                seen.append(await scale_of(repository, "m"))

        done = False
        asking = [asyncio.ensure_future(ask()) for _ in range(4)]
        for scale in range(2, 8):
            write_model(tmp_path, "m", v1=affine(scale, ["b", "n"]))
            await repository.load("m")
        done = True
        await asyncio.gather(*asking)
    assert seen[0] == 1
    assert sorted(set(seen)) == list(dict.fromkeys(sorted(seen)))
    assert set(seen) <= {1, 2, 3, 4, 5, 6, 7}


async def test_an_unload_waits_for_requests_and_refuses_new_ones(tmp_path: Path) -> None:
    write_model(tmp_path, "m", v1=affine(2, ["b", "n"]))
    bench = Bench()
    async with opened(bench, tmp_path, mode=ControlMode.EXPLICIT, startup_models=["m"]) as repository:
        begun, release = await hold(bench)
        answer = start(repository, "m")
        await begun.wait()
        unloading = asyncio.ensure_future(repository.unload("m"))
        await asyncio.sleep(0.02)
        assert not unloading.done()
        assert states(repository) == {("m", 1): ModelState.UNLOADING}
        with pytest.raises(UnavailableError, match="version 1 is UNLOADING"):
            repository.get("m")
        release.set()
        await unloading
        assert float((await answer).outputs["y"][0, 0]) == 2
        assert bench.num_open == 0


async def test_a_cancelled_caller_leaves_nothing_half_done(tmp_path: Path) -> None:
    write_model(tmp_path, "m", v1=affine())
    bench = Bench()
    entered, release = threading.Event(), threading.Event()

    def wait(path: Path) -> None:
        entered.set()
        assert release.wait(60)

    bench.onnxruntime.on_load = wait
    async with opened(bench, tmp_path, mode=ControlMode.EXPLICIT) as repository:
        loading = asyncio.ensure_future(repository.load("m"))
        await asyncio.to_thread(entered.wait, 20)
        assert states(repository) == {("m", 1): ModelState.LOADING}
        with pytest.raises(UnavailableError, match="version 1 is LOADING"):
            repository.get("m")
        assert not repository.is_every_model_ready()
        loading.cancel()
        release.set()
        await eventually(lambda: repository.is_ready("m"))


async def test_loads_of_one_model_follow_one_another(tmp_path: Path) -> None:
    write_model(tmp_path, "m", v1=affine())
    bench = Bench()
    async with opened(bench, tmp_path, mode=ControlMode.EXPLICIT) as repository:
        await asyncio.gather(*(repository.load("m") for _ in range(5)), return_exceptions=False)
        assert await scale_of(repository, "m") == 2
        # The file never changed: its executable was compiled once.
        assert len(bench.onnxruntime.loads) == 1


async def test_the_loop_goes_on_while_a_few_models_load_at_a_time(tmp_path: Path) -> None:
    for index in range(5):
        write_model(tmp_path, f"m{index}", v1=affine())
    bench = Bench()
    lock, now, most, release = threading.Lock(), 0, 0, threading.Event()

    def count(path: Path) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        assert release.wait(60)
        with lock:
            now -= 1

    bench.onnxruntime.on_load = count
    repository = bench.repository(tmp_path, num_load_threads=2)
    opening = asyncio.ensure_future(repository.open())
    await eventually(lambda: now == 2)
    assert not repository.is_open
    release.set()
    await opening
    assert most == 2
    assert len(repository.loaded()) == 5
    await repository.close()


async def test_loads_that_never_end_block_neither_others_nor_unloads(tmp_path: Path) -> None:
    for number in range(6):
        write_model(tmp_path, f"never{number}", v1=affine())
    write_model(tmp_path, "good", v1=affine(2))
    write_model(tmp_path, "other", v1=affine(3))
    bench, clock, go_on = Bench(), VirtualClock(), threading.Event()

    def wait(path: Path) -> None:
        if path.parts[-3].startswith("never"):
            go_on.wait(60)

    bench.onnxruntime.on_load = wait
    options = {"mode": ControlMode.EXPLICIT, "startup_models": ["good"], "clock": clock}
    async with opened(bench, tmp_path, **options) as repository:
        loads = [asyncio.create_task(repository.load(f"never{number}")) for number in range(6)]
        other = asyncio.create_task(repository.load("other"))
        await eventually(lambda: len([1 for name, version in states(repository) if version and name != "good"]) == 4)
        assert {states(repository).get((name, None)) for name in ("never4", "never5", "other")} == {ModelState.LOADING}
        with pytest.raises(UnavailableError, match="'other' has no available versions: LOADING"):
            repository.get("other")
        assert not repository.is_every_model_ready()
        # Three wait for the four, and each goes ahead when it has been the first for a while.
        for _ in range(3):
            clock.advance(5_000_000_000)
            await asyncio.sleep(0.01)
        await asyncio.wait_for(other, 60)
        assert await scale_of(repository, "other") == 3
        await asyncio.wait_for(repository.unload("good"), 60)
        # The unload of a model that loads ends its load.
        await asyncio.wait_for(repository.unload("never0"), 60)
        with pytest.raises(UnavailableError, match="never0.*unloaded meanwhile"):
            await loads[0]
        assert states(repository)["never0", 1] is UNAVAILABLE
        go_on.set()
        await asyncio.wait_for(asyncio.gather(*loads[1:]), 60)
        await repository.load("never0")
        assert await scale_of(repository, "never0") == 2
        await eventually(lambda: bench.num_open == 7)


async def test_a_load_that_waits_for_another_is_not_begun_after_an_unload(tmp_path: Path) -> None:
    write_model(tmp_path, "m", v1=affine())
    bench, begun, go_on = Bench(), threading.Event(), threading.Event()

    def wait(path: Path) -> None:
        begun.set()
        go_on.wait(60)

    bench.onnxruntime.on_load = wait
    async with opened(bench, tmp_path, mode=ControlMode.EXPLICIT) as repository:
        loads = [asyncio.create_task(repository.load("m")) for _ in range(3)]
        # The version is LOADING before its runtime loads it. A load that was not begun would leave nothing to close.
        await eventually(begun.is_set)
        await asyncio.wait_for(repository.unload("m"), 60)
        for load in loads:
            with pytest.raises(UnavailableError, match="unloaded meanwhile"):
                await load
        assert states(repository)["m", 1] is UNAVAILABLE
        go_on.set()
        await eventually(lambda: len(bench.onnxruntime.executables) == 1 and bench.num_open == 0)


@pytest.mark.parametrize("config", [None, "parameters { key: 'load_timeout_secs' value { string_value: '3' } }"])
async def test_a_load_that_takes_too_long_is_given_up(tmp_path: Path, config: str | None) -> None:
    write_model(tmp_path, "m", config, v1=affine())
    bench, clock, go_on = Bench(), VirtualClock(), threading.Event()
    bench.onnxruntime.on_load = lambda path: go_on.wait(60) and None
    seconds = 3 if config else 10
    models = ModelSettings(limits=ModelLimits(load_seconds=10))
    async with opened(bench, tmp_path, mode=ControlMode.EXPLICIT, clock=clock, models=models) as repository:
        load = asyncio.create_task(repository.load("m"))
        await eventually(lambda: states(repository).get(("m", 1)) is ModelState.LOADING)
        clock.advance(seconds * 1_000_000_000 - 1)
        await asyncio.sleep(0.01)
        assert not load.done()
        clock.advance(1)
        with pytest.raises(UnavailableError, match=f"'m': it was not loaded within {seconds} s.*load_timeout_secs"):
            await load
        (entry,) = repository.index()
        assert entry.state is UNAVAILABLE
        assert f"not loaded within {seconds} s" in entry.reason
        go_on.set()
        await eventually(lambda: len(bench.onnxruntime.executables) == 1 and bench.num_open == 0)
        await repository.load("m")
        assert await scale_of(repository, "m") == 2


async def test_a_warm_up_that_never_ends_is_ended(tmp_path: Path) -> None:
    """In ONNX Runtime itself, whose thread would compute for ever."""
    write_model(tmp_path, "never", WARM_UP, v1=turning(2**62))
    bench = Bench()
    bench.runtimes["onnxruntime"] = OnnxRuntime()
    num_threads = threading.active_count()
    async with opened(bench, tmp_path, mode=ControlMode.EXPLICIT) as repository:
        load = asyncio.create_task(repository.load("never"))
        await eventually(lambda: states(repository).get(("never", 1)) is ModelState.LOADING)
        await asyncio.wait_for(repository.unload("never"), 60)
        with pytest.raises(UnavailableError, match="unloaded meanwhile"):
            await load
        await eventually(lambda: threading.active_count() <= num_threads)


async def test_polling_goes_on_while_a_load_does_not_end(tmp_path: Path) -> None:
    write_model(tmp_path, "good", v1=affine(2))
    bench, clock, go_on = Bench(), VirtualClock(), threading.Event()

    def wait(path: Path) -> None:
        if path.parts[-3].startswith("never"):
            go_on.wait(60)

    bench.onnxruntime.on_load = wait
    async with opened(bench, tmp_path, mode=ControlMode.POLL, poll_seconds=1, clock=clock) as repository:
        write_model(tmp_path, "never", v1=affine())
        await look(clock, lambda: ("never", 1) in states(repository))
        write_model(tmp_path, "late", v1=affine(3))
        await look(clock, lambda: states(repository).get(("late", 1)) is READY)
        assert states(repository)["never", 1] is ModelState.LOADING
        go_on.set()
        await look(clock, lambda: states(repository)["never", 1] is READY)
        assert [path for path, *_ in bench.onnxruntime.loads if path.parts[-3] == "never"] == [
            tmp_path / "never" / "1" / "model.onnx"
        ]


async def look(clock: VirtualClock, condition: Callable[[], bool]) -> None:
    """Let the repository look at its folders until what it sees is so."""

    def has_come() -> bool:
        clock.advance(1_000_000_000)
        return condition()

    await eventually(has_come)


async def test_more_instances_reuse_those_that_there_are(tmp_path: Path) -> None:
    write_model(tmp_path, "m", SLOW, v1=affine())
    bench = Bench(num_cores=1)
    async with opened(bench, tmp_path, mode=ControlMode.EXPLICIT, startup_models=["m"]) as repository:
        first = list(bench.onnxruntime.executables)
        (tmp_path / "m/config.pbtxt").write_text("instance_group { count: 3 }")
        await repository.load("m")
        assert len(bench.onnxruntime.loads) == 3
        assert repository.get("m").config.num_instances == 3
        await eventually(lambda: len(asyncio.all_tasks()) == 1)
        assert not any(each.is_closed for each in first)
        assert [await scale_of(repository, "m") for _ in range(6)] == [2] * 6
        (tmp_path / "m/config.pbtxt").write_text("instance_group { count: 1 }")
        await repository.load("m")
        await eventually(lambda: bench.num_open == 1)
        assert len(bench.onnxruntime.loads) == 3
        assert await scale_of(repository, "m") == 2


async def test_a_config_in_the_request_stands_in_for_the_file(tmp_path: Path) -> None:
    write_model(tmp_path, "m", "max_batch_size: 2", v1=affine(2), v2=affine(3))
    async with opened(Bench(), tmp_path, mode=ControlMode.EXPLICIT) as repository:
        await repository.load("m", config_json='{"maxBatchSize": 7, "version_policy": {"specific": {"versions": [1]}}}')
        assert repository.get("m").config.batching.max_batch_size == 7
        assert repository.versions("m") == [1]
        with pytest.raises(InvalidArgumentError, match='did you mean "max_batch_size"'):
            await repository.load("m", config_json='{"max_batchsize": 7}')
        assert repository.get("m").config.batching.max_batch_size == 7
        await repository.load("m")
        assert repository.versions("m") == [1], "the request's config is remembered"
        await repository.unload("m")
        await repository.load("m")
        assert repository.get("m").config.batching.max_batch_size == 2
        assert repository.versions("m") == [2]


async def test_a_config_in_the_request_is_no_larger_than_a_file_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[int] = []
    write_model(tmp_path, "m", "max_batch_size: 2", v1=affine(2))
    async with opened(Bench(), tmp_path, mode=ControlMode.EXPLICIT, startup_models=["m"]) as repository:
        largest = '{"max_batch_size": 7}'.ljust(256 << 10)
        await repository.load("m", config_json=largest)
        monkeypatch.setattr("triune.config.configure.parse_json", lambda text, _: parsed.append(len(text)))
        for files in (None, {"1/model.onnx": affine(4)}):
            with pytest.raises(PayloadTooLargeError, match="has 262145 characters; 262144 are the limit"):
                await repository.load("m", config_json=largest + " ", files=files)
        assert not parsed
        assert repository.get("m").config.batching.max_batch_size == 7
        assert await scale_of(repository, "m") == 2


async def test_files_in_the_request_stand_in_for_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    write_model(tmp_path / "models", "m", v1=affine(2))
    async with opened(Bench(), tmp_path / "models", mode=ControlMode.EXPLICIT, startup_models=["m"]) as repository:
        with pytest.raises(InvalidArgumentError, match="'config' must be specified"):
            await repository.load("m", files={"1/model.onnx": affine(9)})
        await repository.load("m", config_json='{"backend": "onnxruntime"}', files={"5/model.onnx": affine(5)})
        assert repository.versions("m") == [5]
        assert await scale_of(repository, "m") == 5
        for files in ({"5/model.onnx": b"rubbish"}, {"../../evil": b""}, {"5/model.onnx": affine(), "/etc/evil": b""}):
            with pytest.raises(InvalidArgumentError):
                await repository.load("m", config_json="{}", files=files)
        assert await scale_of(repository, "m") == 5
        assert len(list(temporary.iterdir())) == 1
        await repository.load("new", config_json="{}", files={"1/model.onnx": affine(4)})
        assert await scale_of(repository, "new") == 4
        await repository.unload("new")
        assert [entry.name for entry in repository.index()] == ["m"], "no folder has the other one"
        await repository.load("m")
        assert await scale_of(repository, "m") == 2
        await eventually(lambda: list(temporary.iterdir()) == [])
        assert {each.name for each in (tmp_path / "models").iterdir()} == {"m"}
        await repository.load("m", config_json="{}", files={"1/model.onnx": affine(4)})
    assert list(temporary.iterdir()) == []


async def test_warmed_up_before_ready_on_both_units(tmp_path: Path) -> None:
    text = """parameters { key: "units" value { string_value: "cpu,amx" } } model_warmup { name: "w" batch_size: 4
      inputs { key: "x" value { data_type: TYPE_FP32 dims: 4 random_data: true } } }"""
    write_model(tmp_path, "m", text, v1=affine(1.37))
    bench = Bench()
    async with opened(bench, tmp_path) as repository:
        for runtime in (bench.onnxruntime, bench.openvino):
            assert runtime.executables[0].runs[0]["x"].shape == (4, 4)
        assert repository.get("m").statistics.verdicts[Unit.AMX].largest > 0
        assert repository.get("m").config.units == (Unit.CPU, Unit.AMX)
        assert len(dispatcher_of(repository.get("m")).workers) == 2


async def test_what_the_gate_found_is_in_statistics_and_in_the_check_of_a_later_start(tmp_path: Path) -> None:
    write_model(tmp_path / "models", "m", 'parameters { key: "units" value { string_value: "cpu,amx" } }', v1=affine())
    bench = Bench()
    folders = {"verdicts": tmp_path / "gates"}
    (before,) = bench.repository(tmp_path / "models", **folders).check()
    assert before.verdicts == {}
    for is_kept in (False, True):
        async with opened(bench, tmp_path / "models", **folders) as repository:
            (gate,) = statistics_with_energy([repository.get("m")])["model_stats"][0]["triune"]["gate"]
            assert 0 < gate.pop("largest_error") < 0.1
            assert 0 < gate.pop("relative_error") < 0.01
            assert gate == {
                "unit": "amx",
                "is_served": True,
                "precision": "bf16",
                "tolerance": 0.25,
                "argmax_agreement": None,
                "logits_cosine": None,
                "reason": "",
                "is_kept": is_kept,
            }
    (after,) = bench.repository(tmp_path / "models", **folders).check()
    assert set(after.verdicts) == {Unit.AMX}


async def test_small_models_run_inline_and_others_in_threads(tmp_path: Path) -> None:
    write_model(tmp_path, "fixed", v1=affine())
    write_model(tmp_path, "free", v1=affine(shape=["b", "n"]))
    bench = Bench()
    # Time stands still, so that every model of fixed shape looks quick.
    async with opened(bench, tmp_path, clock=VirtualClock()) as repository:
        assert [each.is_inline for each in dispatcher_of(repository.get("fixed")).workers] == [True]
        assert [each.is_inline for each in dispatcher_of(repository.get("free")).workers] == [False]
        assert start(repository, "fixed").done()


async def test_every_change_of_state_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "triune")
    write_model(tmp_path, "m", "optimization { priority: PRIORITY_MAX eager_batching: true }", v1=affine())
    write_model(tmp_path, "bad", v1=b"rubbish")
    async with opened(Bench(), tmp_path, mode=ControlMode.EXPLICIT, startup_models=["*"]) as repository:
        await repository.unload("m")
    lines = [each.getMessage() for each in caplog.records]
    assert "model 'm' is LOADING: version 1" in lines
    ready = [line for line in lines if "READY" in line]
    assert len(ready) == 1
    assert ready[0].startswith("model 'm' version 1 is READY on cpu (onnxruntime, fp32, 8 threads")
    assert "model 'm': no effect in this version: optimization.priority, optimization.eager_batching" in lines
    assert len([line for line in lines if line.startswith("model 'bad' is UNAVAILABLE: version 1: ")]) == 1
    assert "model 'm' is UNAVAILABLE: unloaded" in lines


async def test_check_says_what_would_load_without_loading(tmp_path: Path) -> None:
    write_model(tmp_path / "a", "good", ALL + " optimization { eager_batching: true }", v1=affine(), v2=affine())
    write_model(tmp_path / "a", "half", ALL, v1=affine(), v2=b"rubbish")
    write_model(tmp_path / "a", "bad", "nme: 'x'", v1=affine())
    for folder in ("a", "b"):
        write_model(tmp_path / folder, "twin", v1=affine())
    bench = Bench()
    found = {each.name: each for each in bench.repository(tmp_path / "a", tmp_path / "b").check()}
    assert bench.onnxruntime.loads == []
    assert (found["good"].versions, found["good"].backend, found["good"].units) == ((1, 2), "onnxruntime", (Unit.CPU,))
    assert found["good"].problems == ()
    assert found["good"].hints == ("optimization.eager_batching",)
    assert found["good"].config is not None
    assert [each.startswith("version 2: ") for each in found["half"].problems] == [True]
    assert 'did you mean "name"' in found["bad"].problems[0]
    assert "two or more repositories" in found["twin"].problems[0]


async def eventually(condition: Callable[[], bool], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def touch(path: Path, nanoseconds: int) -> None:
    os.utime(path, ns=(nanoseconds, nanoseconds))


async def test_poll_follows_the_folder(tmp_path: Path) -> None:
    write_model(tmp_path, "a", ALL, v1=affine(2))
    write_model(tmp_path, "gone", v1=affine())
    bench = Bench()
    async with opened(bench, tmp_path, mode=ControlMode.POLL, poll_seconds=3600) as repository:
        before = repository.get("a")
        await repository.poll()
        assert repository.get("a") is before, "nothing changed, nothing is loaded"
        write_model(tmp_path, "a", v2=affine(3))
        write_model(tmp_path, "b", v1=affine(7))
        shutil.rmtree(tmp_path / "gone")
        await repository.poll()
        assert repository.versions("a") == [1, 2]
        assert await scale_of(repository, "a", 1) == 2
        assert await scale_of(repository, "b") == 7
        with pytest.raises(NotFoundError):
            repository.get("gone")
        # Version 1 was not compiled again: a, gone, a/2, b.
        assert len(bench.onnxruntime.loads) == 4
        (tmp_path / "a/config.pbtxt").write_text(ALL + "max_batch_size: 9")
        shutil.rmtree(tmp_path / "a/2")
        await repository.poll()
        assert repository.versions("a") == [1]
        assert repository.get("a").config.batching.max_batch_size == 9
        (tmp_path / "b/1/model.onnx").write_bytes(affine(8))
        touch(tmp_path / "b/1/model.onnx", 1)
        await repository.poll()
        assert await scale_of(repository, "b") == 8


async def test_poll_keeps_what_serves_when_a_change_is_bad_and_tries_once(tmp_path: Path) -> None:
    write_model(tmp_path, "m", v1=affine(2))
    bench = Bench()
    async with opened(bench, tmp_path, mode=ControlMode.POLL, poll_seconds=3600) as repository:
        (tmp_path / "m/1/model.onnx").write_bytes(b"half a fi")
        attempts = 0
        inspect = bench.onnxruntime.inspect

        def counted(path: Path, options: Mapping[str, Parameter] = NO_OPTIONS) -> object:
            nonlocal attempts
            attempts += 1
            return inspect(path, options)

        bench.onnxruntime.inspect = counted
        await repository.poll()
        await repository.poll()
        assert attempts == 1
        assert await scale_of(repository, "m") == 2
        (tmp_path / "m/1/model.onnx").write_bytes(affine(4))
        await repository.poll()
        assert await scale_of(repository, "m") == 4


async def test_poll_happens_by_itself_and_outlives_a_repository_that_vanishes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models = tmp_path / "models"
    write_model(models, "m", v1=affine(2))
    clock = VirtualClock()
    async with opened(Bench(), models, mode=ControlMode.POLL, poll_seconds=15, clock=clock) as repository:
        models.rename(tmp_path / "away")
        clock.advance(15_000_000_000)
        await eventually(lambda: "its models are served as before" in caplog.text)
        assert "is UNAVAILABLE" not in caplog.text
        assert states(repository) == {("m", 1): READY}
        assert await scale_of(repository, "m") == 2
        (tmp_path / "away").rename(models)
        write_model(models, "n", v1=affine(3))

        def is_there() -> bool:
            clock.advance(15_000_000_000)
            return any(each.name == "n" and each.state is READY for each in repository.index())

        await eventually(is_there)
        assert await scale_of(repository, "n") == 3


async def test_poll_goes_on_where_the_index_saw_a_model_vanish(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_model(models, "kept", None, v1=affine())
    async with opened(Bench(), models, mode=ControlMode.POLL, poll_seconds=3600) as repository:
        for number in range(10):
            late = write_model(models, f"late{number}", None, v1=affine())
            polling = asyncio.ensure_future(repository.poll())
            while not polling.done():
                if late.name in repository._found and late.exists():
                    shutil.rmtree(late)
                    await repository.list_folders()
                await asyncio.sleep(0)
            await polling
        assert repository.is_ready("kept")


async def test_whoever_looks_sees_what_was_there_before_and_shares_the_look_with_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path, "first", v1=affine())
    find, threads, go_on = Finder.find, list[threading.Thread](), threading.Event()

    def find_when_told(self: Finder) -> object:
        found = find(self)
        threads.append(threading.current_thread())
        go_on.wait(60)
        return found

    async with opened(Bench(), tmp_path, mode=ControlMode.EXPLICIT) as repository:
        monkeypatch.setattr(Finder, "find", find_when_told)
        looking = asyncio.create_task(repository.list_folders())
        await eventually(lambda: len(threads) == 1)
        # That look has listed the folder already.
        write_model(tmp_path, "second", v1=affine())
        others = [asyncio.create_task(repository.list_folders()) for _ in range(50)]
        await asyncio.sleep(0)
        others[0].cancel()
        go_on.set()
        await asyncio.gather(looking, *others[1:])
        assert {name for name, _ in states(repository)} == {"first", "second"}
        assert len(threads) == 2
        assert threading.current_thread() not in threads
        # One who is cancelled while it looks for others leaves it to them.
        go_on.clear()
        looking = asyncio.create_task(repository.list_folders())
        await eventually(lambda: len(threads) == 3)
        write_model(tmp_path, "third", v1=affine())
        others = [asyncio.create_task(repository.list_folders()) for _ in range(2)]
        await asyncio.sleep(0)
        looking.cancel()
        await eventually(lambda: len(threads) == 4)
        others[0].cancel()
        go_on.set()
        await others[1]
        assert ("third", None) in states(repository)


async def test_close_refuses_what_waits_and_finishes_what_runs(tmp_path: Path) -> None:
    write_model(tmp_path, "m", v1=affine(2, ["b", "n"]))
    bench = Bench()
    repository = bench.repository(tmp_path)
    await repository.open()
    begun, release = await hold(bench)
    running = start(repository, "m")
    await begun.wait()
    waiting = start(repository, "m")
    closing = asyncio.ensure_future(repository.close())
    with pytest.raises(UnavailableError):
        await waiting
    release.set()
    await closing
    assert float((await running).outputs["y"][0, 0]) == 2
    assert bench.num_open == 0
    await repository.close()


def is_served(repository: Repository, loaded: LoadedVersion) -> bool:
    try:
        return repository.get("m") is loaded
    except UnavailableError:
        return False


@pytest.mark.parametrize("change", ["load", "unload"])
async def test_drain_and_close_know_of_versions_that_retire(tmp_path: Path, change: str) -> None:
    write_model(tmp_path, "m", v1=affine(2, ["b", "n"]))
    bench = Bench()
    async with opened(bench, tmp_path, mode=ControlMode.EXPLICIT, startup_models=["m"]) as repository:
        begun, release = await hold(bench)
        running = start(repository, "m")
        await begun.wait()
        waiting = start(repository, "m")
        old = repository.get("m")
        write_model(tmp_path, "m", v1=affine(3, ["b", "n"]))
        changing = asyncio.ensure_future(getattr(repository, change)("m"))
        await eventually(lambda: not is_served(repository, old))
        draining = asyncio.ensure_future(repository.drain())
        await asyncio.sleep(0.02)
        assert not draining.done()
        closing = asyncio.ensure_future(repository.close())
        with pytest.raises(UnavailableError, match="was unloaded"):
            await asyncio.wait_for(waiting, 60)
        assert not running.done()
        release.set()
        assert float((await running).outputs["y"][0, 0]) == 2
        await asyncio.wait_for(asyncio.gather(draining, closing, changing), 60)
        assert bench.num_open == 0


async def test_close_while_models_load(tmp_path: Path) -> None:
    for index in range(6):
        write_model(tmp_path, f"m{index}", v1=affine())
    bench = Bench()
    entered, release = threading.Event(), threading.Event()

    def wait(path: Path) -> None:
        entered.set()
        assert release.wait(60)

    bench.onnxruntime.on_load = wait
    repository = bench.repository(tmp_path, num_load_threads=1)
    opening = asyncio.ensure_future(repository.open())
    await asyncio.to_thread(entered.wait, 20)
    # It is given up, whatever it does.
    await asyncio.wait_for(repository.close(), 60)
    await opening
    assert not repository.is_open
    assert bench.onnxruntime.loads == []
    release.set()
    await eventually(lambda: len(bench.onnxruntime.loads) == 1 and not is_work_left())
    await eventually(lambda: bench.num_open == 0)


async def test_a_load_that_fails_is_tried_again(tmp_path: Path) -> None:
    write_model(tmp_path, "m", v1=affine())
    bench, attempts = Bench(), 0

    def fail_twice(path: Path) -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise InvalidArgumentError("not yet")

    bench.onnxruntime.on_load = fail_twice
    async with opened(bench, tmp_path, num_load_retries=1) as repository:
        assert not repository.is_ready("m")
    attempts = 0
    async with opened(bench, tmp_path, num_load_retries=2) as repository:
        assert await scale_of(repository, "m") == 2


async def test_one_repository_given_twice_is_one(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_model(models, "m", v1=affine())
    (tmp_path / "link").symlink_to(models)
    async with opened(Bench(), models, tmp_path / "link", models / ".." / "models") as repository:
        assert await scale_of(repository, "m") == 2


BIG = '{"backend": "onnxruntime", "max_batch_size": 8}'


async def test_the_config_of_a_load_is_remembered_until_the_folder_changes(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "m", "max_batch_size: 2", v1=affine())

    def size(repository: Repository) -> int:
        return repository.get("m").config.batching.max_batch_size

    async with opened(Bench(), tmp_path, mode=ControlMode.EXPLICIT) as repository:
        await repository.load("m")
        assert size(repository) == 2
        await repository.load("m", config_json=BIG)
        served = repository.get("m")
        await repository.load("m")
        assert repository.get("m") is served, "the config is remembered, and nothing has changed"
        assert served.config.batching.max_batch_size == 8
        with pytest.raises(InvalidArgumentError):
            await repository.load("m", config_json='{"max_batch_size": -1}')
        await repository.load("m")
        assert repository.get("m") is served, "a config that failed is not remembered"
        (folder / "1" / "model.onnx").write_bytes(affine(3))
        await repository.load("m")
        assert size(repository) == 2, "the folder was changed: its own config holds"
        await repository.load("m", config_json=BIG)
        os.utime(folder / "config.pbtxt")
        await repository.load("m")
        assert size(repository) == 2, "a config that was touched is newer than the request's"
        await repository.load("m", config_json=BIG)
        await repository.unload("m")
        await repository.load("m")
        assert size(repository) == 2, "unloading forgets it"
        await repository.load("m", config_json=BIG, files={"1/model.onnx": affine(5)})
        assert await scale_of(repository, "m") == 5
        await repository.load("m")
        assert size(repository) == 2
        assert await scale_of(repository, "m") == 3, "files of a request are gone with the next load"


async def test_unmodified_versions_are_left_alone(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "m", ALL, v1=affine(), v2=affine(3))
    bench = Bench()
    async with opened(bench, tmp_path, mode=ControlMode.EXPLICIT) as repository:
        await repository.load("m")
        first, second = repository.get("m", 1), repository.get("m", 2)
        await start(repository, "m", 1)
        (folder / "1" / "model.onnx").write_bytes(affine())
        (folder / "2" / "model.onnx").write_bytes(affine(4))
        (folder / "config.pbtxt").write_text(f"# said otherwise\n{ALL}")
        await repository.load("m")
        assert repository.get("m", 1) is first
        assert first.statistics.success.count == 1
        assert repository.get("m", 2) is not second
        assert await scale_of(repository, "m", 2) == 4
        assert await scale_of(repository, "m", 1) == 2
        shutil.rmtree(folder / "1")
        await repository.load("m")
        assert repository.versions("m") == [2]
        (folder / "labels.txt").write_text("one")
        last = repository.get("m", 2)
        await repository.load("m")
        assert repository.get("m", 2) is not last, "what all versions share has changed"


async def test_the_same_bytes_in_another_folder_are_another_version(tmp_path: Path) -> None:
    write_model(tmp_path, "m", v1=affine())
    async with opened(Bench(), tmp_path, mode=ControlMode.EXPLICIT) as repository:
        await repository.load("m", config_json="{}", files={"1/model.onnx": affine()})
        of_request = repository.get("m")
        await repository.load("m")
        assert repository.get("m") is not of_request, "the request's files are gone, and with them what could restart"
        assert await scale_of(repository, "m") == 2


async def test_polling_leaves_alone_what_was_written_anew_with_the_same_bytes(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "m", v1=affine())
    async with opened(Bench(), tmp_path, mode=ControlMode.POLL, clock=VirtualClock()) as repository:
        served = repository.get("m")
        (folder / "1" / "model.onnx").write_bytes(affine())
        await repository.poll()
        assert repository.get("m") is served


async def test_polling_unloads_a_model_that_appears_in_a_second_repository(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    write_model(ours, "m", v1=affine())
    theirs.mkdir()
    async with opened(Bench(), ours, theirs, mode=ControlMode.POLL, clock=VirtualClock()) as repository:
        assert await scale_of(repository, "m") == 2
        write_model(theirs, "m", v1=affine(3))
        await repository.poll()
        assert repository.index() == [IndexEntry("m", None, UNAVAILABLE, "model appears in two or more repositories")]
        with pytest.raises(UnavailableError, match="has no available versions: model appears in two or more"):
            repository.get("m")
        await repository.poll()
        shutil.rmtree(ours / "m")
        await repository.poll()
        assert await scale_of(repository, "m") == 3


async def test_a_failed_load_of_a_name_that_nobody_knows_leaves_no_trace(tmp_path: Path) -> None:
    write_model(tmp_path, "m", v1=affine())
    async with opened(Bench(), tmp_path, mode=ControlMode.EXPLICIT, startup_models=["m"]) as repository:
        for config in ("{}", "{", '{"backend": "none"}'):
            with pytest.raises((InvalidArgumentError, UnsupportedError)):
                await repository.load("ghost", config_json=config, files={"1/model.onnx": b"no model"})
        assert [each.name for each in repository.index()] == ["m"]
        assert repository.is_every_model_ready()
        with pytest.raises(NotFoundError):
            repository.get("ghost")
        await repository.load("ghost", config_json="{}", files={"1/model.onnx": affine(3)})
        with pytest.raises(InvalidArgumentError):
            await repository.load("ghost", config_json="{}", files={"1/model.onnx": b"no model"})
        assert await scale_of(repository, "ghost") == 3, "what serves is remembered"


def test_a_repository_whose_name_is_not_utf8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"bad\xff")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this disk takes names of UTF-8 only")
    with pytest.raises(InvalidArgumentError, match=r"bad\\xff' is not UTF-8; rename it"):
        make_repository(RepositorySettings([folder]))
