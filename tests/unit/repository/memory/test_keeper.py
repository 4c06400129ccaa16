"""Models within a memory budget: which are loaded, unloaded for room, loaded again, and refused."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from support.ensembles import chain, write_ensemble
from support.repositories import Bench, affine, write_model
from triune.core.clock import VirtualClock
from triune.core.errors import (
    InternalError,
    NoRoomError,
    TriuneError,
    UnavailableError,
    UnsupportedError,
)
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.core.servable import Call
from triune.repository.memory.meter import Growth, LoadMeter
from triune.repository.memory.parked import ParkedServable
from triune.repository.model import ModelState
from triune.repository.repository import Repository
from triune.repository.settings import ControlMode

READY, UNAVAILABLE = ModelState.READY, ModelState.UNAVAILABLE
PINNED = 'parameters { key: "pinned" value { string_value: "true" } }'
LOOSE = 'parameters { key: "pinned" value { string_value: "false" } }'
BATCH = "max_batch_size: 8 "
IN_THREADS = "instance_group { count: 2 }"
"""Two executables of half the size each: such a model does not run on the event loop."""


class Blind(LoadMeter):
    """Measures nothing, so that models are charged with the sizes of their files."""

    def end(self) -> Growth:
        self.leave()
        return Growth(0)


def put(path: Path, name: str, scale: float, *, size: int = 100_000, config: str | None = None) -> None:
    """A model that multiplies by `scale`, with files of `size` bytes in all."""
    content = affine(scale)
    folder = write_model(path, name, config, v1=content)
    (folder / "1" / "more.bin").write_bytes(bytes(size - len(content)))


@asynccontextmanager
async def opened(
    path: Path, budget: int, mode: ControlMode = ControlMode.NONE, bench: Bench | None = None, **options: object
) -> AsyncIterator[Repository]:
    bench = bench or Bench()
    repository = bench.repository(path, mode=mode, model_memory_bytes=budget, meter=Blind(), **options)
    await repository.open()
    try:
        yield repository
        repository.memory.ledger.check()
    finally:
        await asyncio.wait_for(repository.close(), 60)
        assert bench.num_open == 0, "an executable was not closed"


def submit(repository: Repository, name: str, value: float = 1.0, **more: int) -> asyncio.Future[InferenceResponse]:
    x = {"x": np.full((1, 4), value, np.float32)}
    return repository.get(name).servable.submit(Call(InferenceRequest(name, x, **more), x, 1))


async def answer(repository: Repository, name: str, value: float = 1.0, **more: int) -> float:
    return float((await submit(repository, name, value, **more)).outputs["y"][0, 0])


def loaded(repository: Repository) -> set[str]:
    return {each.name for each in repository.index(is_ready_only=True)}


def reason(repository: Repository, name: str) -> str:
    (entry,) = (each for each in repository.index() if each.name == name)
    return entry.reason


async def until_resident(repository: Repository, *names: str) -> None:
    """Wait until the models have kept their places for as long as their loads took, and may go."""
    while not all(
        each.is_idle and each.is_settled for each in await repository.memory.room.candidates("") if each.name in names
    ):
        await asyncio.sleep(0.001)


async def test_three_models_share_the_room_for_two(tmp_path: Path) -> None:
    for name, scale in (("a", 2), ("b", 3), ("c", 5)):
        put(tmp_path, name, scale)
    async with opened(tmp_path, 250_000) as repository:
        first = loaded(repository)
        assert len(first) == 2
        (out,) = {"a", "b", "c"} - first
        assert reason(repository, out).startswith("unloaded for room: ")
        assert "version 1: it takes 100000 bytes of memory, by the size of its files" in reason(repository, out)
        assert repository.is_ready(out), "it answers requests"
        assert repository.is_every_model_ready()
        assert repository.get(out).config.inputs.keys() == {"x"}
        for name in ("c", "a", "b", "b", "c", "a"):
            await until_resident(repository, "a", "b", "c")
            assert await answer(repository, name, 7) == 7 * {"a": 2, "b": 3, "c": 5}[name]
            assert name in loaded(repository)
            assert len(loaded(repository)) == 2
            assert repository.memory.ledger.used_bytes == 200_000


async def test_the_least_recently_used_goes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        put(tmp_path, name, 2)
    async with opened(tmp_path, 250_000, ControlMode.POLL, poll_seconds=3600) as repository:
        put(tmp_path, "c", 5)
        await repository.poll()
        assert loaded(repository) == {"a", "b"}, "a poll unloads none"
        await answer(repository, "b")
        await asyncio.sleep(0.005)  # the time of an answer is told in milliseconds
        await answer(repository, "a")
        await until_resident(repository, "a", "b")
        assert await answer(repository, "c") == 5
        assert loaded(repository) == {"a", "c"}
        assert "model 'c' needed 100000 bytes; a request loads it again" in reason(repository, "b")


async def test_who_asks_at_the_same_time_waits_for_one_load(tmp_path: Path) -> None:
    for name, scale in (("a", 2), ("b", 3), ("c", 5)):
        put(tmp_path, name, scale, config=BATCH)
    bench = Bench()
    async with opened(tmp_path, 250_000, bench=bench) as repository:
        (out,) = {"a", "b", "c"} - loaded(repository)
        scale = {"a": 2, "b": 3, "c": 5}[out]
        before = len(bench.onnxruntime.loads)
        answers = await asyncio.gather(*(answer(repository, out, value) for value in range(1, 40)))
        assert answers == [scale * value for value in range(1, 40)]
        assert len(bench.onnxruntime.loads) == before + 1


async def test_a_storm_on_all_models_answers_everyone(tmp_path: Path) -> None:
    scales = {"a": 2, "b": 3, "c": 5, "d": 7}
    for name, scale in scales.items():
        put(tmp_path, name, scale, config=BATCH)
    async with opened(tmp_path, 250_000) as repository:

        async def client(name: str) -> None:
            for value in range(1, 13):
                assert await answer(repository, name, value) == scales[name] * value
                await asyncio.sleep(0)

        await asyncio.gather(*(client(name) for name in scales for _ in range(4)))
        assert repository.memory.ledger.used_bytes <= 250_000


async def test_one_that_is_larger_than_all_memory_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "large", 2, size=300_000)
    put(tmp_path, "small", 3)
    words = (
        "it takes 300000 bytes of memory, by the size of its files, and all models together may take 250000: "
        "allow them more by --model-memory-bytes if the machine has it, or compress the model"
    )
    async with opened(tmp_path, 250_000) as repository:
        assert loaded(repository) == {"small"}
        assert reason(repository, "large") == words
        with pytest.raises(UnavailableError, match="takes 300000 bytes"):
            repository.get("large")
    async with opened(tmp_path, 250_000, ControlMode.EXPLICIT) as repository:
        with pytest.raises(UnsupportedError, match="load failed for model 'large': version 1: it takes 300000"):
            await repository.load("large")
        await repository.load("small")
        assert await answer(repository, "small") == 3


async def test_a_pinned_model_stays(tmp_path: Path) -> None:
    put(tmp_path, "kept", 2, config=PINNED)
    put(tmp_path, "b", 3)
    put(tmp_path, "c", 5)
    async with opened(tmp_path, 250_000) as repository:
        assert "kept" in loaded(repository)
        for name in ("c", "b", "c", "b"):
            await until_resident(repository, "b", "c")
            assert await answer(repository, name) == {"b": 3, "c": 5}[name]
            assert loaded(repository) == {"kept", name}


async def test_where_only_pinned_ones_are_loaded_a_request_is_refused_and_told_why(tmp_path: Path) -> None:
    put(tmp_path, "kept", 2, config=PINNED)
    put(tmp_path, "other", 3, size=200_000)
    async with opened(tmp_path, 250_000) as repository:
        for _ in range(2):
            with pytest.raises(
                NoRoomError,
                match=r"takes 200000 bytes .* of which 150000 of 250000 are free: 'kept' takes 100000 \(pinned\); try "
                "again later, unload one of these, or allow models more by --model-memory-bytes",
            ):
                await submit(repository, "other")
        assert reason(repository, "other").startswith("unloaded for room: ")
        assert await answer(repository, "kept") == 2
        assert repository.memory.ledger.used_bytes == 100_000


@pytest.mark.parametrize("word", ["maybe", ""])
async def test_pinned_is_a_boolean(tmp_path: Path, word: str) -> None:
    put(tmp_path, "m", 2, config=PINNED.replace("true", word))
    async with opened(tmp_path, 250_000) as repository:
        assert "'pinned'" in reason(repository, "m")


async def test_with_explicit_control_clients_decide(tmp_path: Path) -> None:
    for name, scale in (("a", 2), ("b", 3), ("c", 5)):
        put(tmp_path, name, scale)
    async with opened(tmp_path, 250_000, ControlMode.EXPLICIT) as repository:
        await repository.load("a")
        await repository.load("b")
        with pytest.raises(NoRoomError, match=r"'c': version 1: .* 'a' takes 100000 \(pinned\), 'b' takes 100000"):
            await repository.load("c")
        assert loaded(repository) == {"a", "b"}
        with pytest.raises(UnavailableError, match="'c' has no available versions"):
            repository.get("c")
        await repository.unload("b")
        await repository.load("c")
        assert await answer(repository, "c") == 5


async def test_with_explicit_control_a_load_unloads_those_that_are_not_pinned(tmp_path: Path) -> None:
    put(tmp_path, "a", 2, config=LOOSE)
    put(tmp_path, "b", 3)
    put(tmp_path, "c", 5)
    async with opened(tmp_path, 250_000, ControlMode.EXPLICIT) as repository:
        for name in ("a", "b"):
            await repository.load(name)
        await until_resident(repository, "a")
        await repository.load("c")
        assert loaded(repository) == {"b", "c"}
        with pytest.raises(NoRoomError):
            await submit(repository, "a")
        await repository.unload("c")
        assert await answer(repository, "a") == 2
        await repository.unload("a")
        with pytest.raises(UnavailableError, match="UNAVAILABLE: unloaded$"):
            repository.get("a")


async def test_a_busy_model_is_not_unloaded_while_an_idle_one_does(tmp_path: Path) -> None:
    bench = Bench()
    go, begun = threading.Event(), threading.Event()
    put(tmp_path, "a", 2, size=50_000, config=IN_THREADS)
    put(tmp_path, "b", 3)
    async with opened(tmp_path, 250_000, ControlMode.POLL, bench, poll_seconds=3600) as repository:
        put(tmp_path, "c", 5)
        await repository.poll()
        await answer(repository, "a")  # the least recently used
        await asyncio.sleep(0.005)
        await answer(repository, "b")
        await until_resident(repository, "a", "b")
        bench.onnxruntime.on_run = lambda: (begun.set(), go.wait(60))
        slow = submit(repository, "a")
        await asyncio.to_thread(begun.wait, 60)
        bench.onnxruntime.on_run = lambda: None
        assert await answer(repository, "c") == 5
        assert loaded(repository) == {"a", "c"}
        go.set()
        assert (await slow).outputs["y"][0, 0] == 2


async def test_a_busy_model_finishes_first_when_no_idle_one_does(tmp_path: Path) -> None:
    bench = Bench()
    go, begun = threading.Event(), threading.Event()
    put(tmp_path, "a", 2, config=IN_THREADS)
    async with opened(tmp_path, 250_000, ControlMode.POLL, bench, poll_seconds=3600) as repository:
        put(tmp_path, "c", 5)
        await repository.poll()
        bench.onnxruntime.on_run = lambda: (begun.set(), go.wait(60))
        slow = submit(repository, "a")
        await asyncio.to_thread(begun.wait, 60)
        bench.onnxruntime.on_run = lambda: None
        waiting = submit(repository, "c")
        while {each.name: each.state for each in repository.index()}["a"] is not ModelState.UNLOADING:
            await asyncio.sleep(0.01)
        later = submit(repository, "a", 4)
        assert not slow.done()
        go.set()
        assert (await slow).outputs["y"][0, 0] == 2
        assert (await waiting).outputs["y"][0, 0] == 5
        assert (await later).outputs["y"][0, 0] == 8


async def test_a_request_that_cannot_wait_is_told_when_to_come_again(tmp_path: Path) -> None:
    bench = Bench()
    put(tmp_path, "a", 2, size=200_000)
    put(tmp_path, "b", 3, size=200_000)
    async with opened(tmp_path, 250_000, bench=bench) as repository:
        (name,) = loaded(repository)
        other = "b" if name == "a" else "a"
        await answer(repository, other)
        record = repository.memory._residents.models[name]
        record.usage.load_ns = 7_400_000_000
        with pytest.raises(UnavailableError, match="takes about 7.4 s, longer than the 1000000 us") as raised:
            submit(repository, name, timeout_us=1_000_000)
        assert raised.value.retry_after_seconds == 8
        # It is being loaded meanwhile, and whoever can wait is answered.
        assert await answer(repository, name) == {"a": 2, "b": 3}[name]


async def test_a_request_that_waited_for_its_timeout_is_refused_and_hurts_no_other(tmp_path: Path) -> None:
    bench = Bench()
    go = threading.Event()
    put(tmp_path, "a", 2, size=200_000)
    put(tmp_path, "b", 3, size=200_000)
    async with opened(tmp_path, 250_000, bench=bench) as repository:
        (name,) = {"a", "b"} - loaded(repository)
        bench.onnxruntime.on_load = lambda _: go.wait(60)
        patient = submit(repository, name)
        with pytest.raises(UnavailableError, match="was not loaded within the 20000 us"):
            await submit(repository, name, timeout_us=20_000)
        leaving = submit(repository, name)
        await asyncio.sleep(0)
        leaving.cancel()
        go.set()
        assert (await patient).outputs["y"][0, 0] == {"a": 2, "b": 3}[name]
        assert leaving.cancelled()


async def test_waiting_requests_are_limited(tmp_path: Path) -> None:
    put(tmp_path, "a", 2, size=200_000)
    put(tmp_path, "b", 3, size=200_000)
    async with opened(tmp_path, 250_000) as repository:
        (name,) = {"a", "b"} - loaded(repository)
        servable = repository.get(name).servable
        assert isinstance(servable, ParkedServable)
        servable._max_requests = 3
        waiting = [submit(repository, name) for _ in range(3)]
        with pytest.raises(UnavailableError, match="3 requests wait for it already"):
            submit(repository, name)
        assert len(await asyncio.gather(*waiting)) == 3


async def test_an_unload_or_the_end_refuses_those_who_wait(tmp_path: Path) -> None:
    bench = Bench()
    go = threading.Event()
    put(tmp_path, "a", 2, size=200_000, config=LOOSE)
    put(tmp_path, "b", 3, size=200_000, config=LOOSE)
    async with opened(tmp_path, 250_000, ControlMode.EXPLICIT, bench) as repository:
        await repository.load("a")
        await repository.load("b")
        bench.onnxruntime.on_load = lambda _: go.wait(60)
        waiting = submit(repository, "a")
        while len(bench.onnxruntime.loads) < 2 or not repository.memory._waking:
            await asyncio.sleep(0.01)
        unloading = asyncio.create_task(repository.unload("a"))
        with pytest.raises(TriuneError, match="unloaded"):
            await waiting
        go.set()
        await unloading
        with pytest.raises(UnavailableError, match="unloaded"):
            repository.get("a")
        assert repository.memory.ledger.by_model().get("a", 0) == 0


async def test_the_models_of_an_ensemble_stay(tmp_path: Path) -> None:
    put(tmp_path, "part", 2, config=BATCH)
    put(tmp_path, "b", 3, config=BATCH)
    write_ensemble(tmp_path, "whole", chain("part"))
    async with opened(tmp_path, 250_000, ControlMode.POLL, poll_seconds=3600) as repository:
        put(tmp_path, "c", 5, config=BATCH)
        await repository.poll()
        for name in ("c", "b", "c"):
            await until_resident(repository, "b", "c")
            await answer(repository, name)
            assert loaded(repository) == {"part", "whole", name}
        assert await answer(repository, "whole") == 2


async def test_an_ensemble_s_model_without_room_is_loaded_by_the_ensemble_s_request(tmp_path: Path) -> None:
    put(tmp_path, "a", 3, size=200_000, config=BATCH)
    async with opened(tmp_path, 250_000, ControlMode.POLL, poll_seconds=3600) as repository:
        put(tmp_path, "part", 2, config=BATCH)
        write_ensemble(tmp_path, "whole", chain("part"))
        await repository.poll()
        assert "part" not in loaded(repository)
        await until_resident(repository, "a")
        assert await answer(repository, "whole") == 2
        assert loaded(repository) == {"part", "whole"}


async def test_files_that_were_broken_for_a_while(tmp_path: Path) -> None:
    put(tmp_path, "a", 2, size=200_000)
    put(tmp_path, "b", 3, size=200_000)
    clock = VirtualClock()
    async with opened(tmp_path, 250_000, clock=clock) as repository:
        (name,) = {"a", "b"} - loaded(repository)
        (tmp_path / name / "1" / "model.onnx").write_bytes(b"not a model")
        for rest_seconds in (1, 2, 4, 8, 16, 32, 60, 60):
            with pytest.raises(
                UnavailableError, match="was not in memory, and its load failed: .* not an ONNX"
            ) as caught:
                await submit(repository, name)
            assert caught.value.retry_after_seconds == rest_seconds
            clock.advance(rest_seconds * 1_000_000_000 - 1)
            with pytest.raises(UnavailableError, match="not an ONNX model.*a request after 1e-09 s tries it again"):
                submit(repository, name)
            clock.advance(1)
        assert "its last load failed: version 1: model.onnx is not an ONNX model" in reason(repository, name)
        assert repository.is_every_model_ready()
        put(tmp_path, name, 7, size=200_000)
        assert await answer(repository, name) == 7
        assert loaded(repository) == {name}


async def test_a_load_that_failed_for_a_reason_of_its_own_is_tried_again(tmp_path: Path) -> None:
    bench = Bench()
    put(tmp_path, "a", 2, size=200_000)
    put(tmp_path, "b", 3, size=200_000)
    clock = VirtualClock()
    async with opened(tmp_path, 250_000, bench=bench, clock=clock) as repository:
        (name,) = {"a", "b"} - loaded(repository)

        def end(path: Path) -> None:
            raise InternalError("its process was killed")

        bench.onnxruntime.on_load = end
        waiting = [submit(repository, name) for _ in range(3)]
        for each in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(each, UnavailableError)
            assert "its process was killed" in str(each)
        bench.onnxruntime.on_load = lambda _: None
        clock.advance(1_000_000_000)
        assert await answer(repository, name) == {"a": 2, "b": 3}[name]


async def test_a_poll_sees_changed_files_of_a_model_that_is_not_loaded(tmp_path: Path) -> None:
    put(tmp_path, "a", 2, size=200_000)
    put(tmp_path, "b", 3, size=200_000)
    async with opened(tmp_path, 250_000, ControlMode.POLL, poll_seconds=3600) as repository:
        (name,) = {"a", "b"} - loaded(repository)
        put(tmp_path, name, 9, size=220_000)
        await repository.poll()
        assert "takes 220000 bytes" in reason(repository, name)
        assert await answer(repository, name) == 9


async def test_statistics_go_on_while_a_model_is_unloaded(tmp_path: Path) -> None:
    put(tmp_path, "a", 2, size=200_000)
    put(tmp_path, "b", 3, size=200_000)
    async with opened(tmp_path, 250_000) as repository:
        (name,) = loaded(repository)
        (other,) = {"a", "b"} - {name}
        for _ in range(3):
            await answer(repository, name)
        await answer(repository, other)
        counted = {each.config.name: each.statistics.success.count for each in repository.loaded()}
        assert counted == {name: 3, other: 1}
        usage = repository.memory._residents.models[name].usage
        assert (usage.num_unloaded, usage.num_refused) == (1, 0)


async def test_a_replacement_needs_room_beside_the_version_that_serves(tmp_path: Path) -> None:
    put(tmp_path, "a", 2, size=200_000)
    async with opened(tmp_path, 250_000, ControlMode.POLL, poll_seconds=3600) as repository:
        put(tmp_path, "a", 9, size=210_000)
        await repository.poll()
        assert await answer(repository, "a") == 2
        assert repository.memory.ledger.used_bytes == 200_000


async def test_a_change_of_the_config_alone_is_charged_once(tmp_path: Path) -> None:
    put(tmp_path, "a", 2, size=200_000)
    async with opened(tmp_path, 250_000, ControlMode.POLL, poll_seconds=3600) as repository:
        put(tmp_path, "a", 2, size=200_000, config=BATCH)
        await repository.poll()
        assert repository.get("a").config.batching.max_batch_size == 8
        while repository.memory.ledger.leaving_bytes:
            await asyncio.sleep(0.01)
        assert repository.memory.ledger.used_bytes == 200_000


async def test_one_that_takes_more_than_estimated_makes_idle_ones_go(tmp_path: Path) -> None:
    class Surprised(Blind):
        def end(self) -> Growth:
            super().end()
            return Growth(0, own_bytes=150_000)

    put(tmp_path, "a", 2)
    put(tmp_path, "b", 3)
    repository = Bench().repository(tmp_path, model_memory_bytes=250_000, meter=Surprised())
    await repository.open()
    try:
        while len(loaded(repository)) > 1:
            await asyncio.sleep(0.01)
        assert repository.memory.ledger.used_bytes == 150_000
        (name,) = {"a", "b"} - loaded(repository)
        assert await answer(repository, name) == {"a": 2, "b": 3}[name]
        assert loaded(repository) == {name}, "what it takes is known now"
    finally:
        await repository.close()


async def test_a_refusal_names_the_largest_and_counts_the_others(tmp_path: Path) -> None:
    for number in range(11):
        put(tmp_path, f"m{number}", 2, size=10_000 + number, config=PINNED)
    put(tmp_path, "late", 3)
    async with opened(tmp_path, 150_000) as repository:
        with pytest.raises(NoRoomError, match=r"'m10' takes 10010 \(pinned\), 'm9' .* 'm3' .*, 3 more take 30003; try"):
            await submit(repository, "late")


async def test_loads_that_overlap_are_charged_with_what_they_added_together(tmp_path: Path) -> None:
    class Together(Blind):
        num_ended = 0

        def end(self) -> Growth:
            self.leave()
            self.num_ended += 1
            return Growth(1, group_bytes=600_000 if self.num_ended == 2 else None)

    put(tmp_path, "a", 2, size=100_000)
    put(tmp_path, "b", 3, size=200_000)
    repository = Bench().repository(tmp_path, model_memory_bytes=1_000_000, meter=Together())
    await repository.open()
    try:
        assert repository.memory.ledger.by_model() == {"a": 200_000, "b": 400_000}
        assert [repository.memory.expected_bytes(each) for each in repository.memory.records()] == [200_000, 400_000]
        repository.memory.ledger.check()
    finally:
        await repository.close()


async def test_what_is_measured_while_requests_come_is_not_remembered(tmp_path: Path) -> None:
    class Disturbed(Blind):
        growths = iter([Growth(1, own_bytes=900_000, is_certain=False), Growth(2, own_bytes=120_000)])

        def end(self) -> Growth:
            self.leave()
            return next(self.growths)

    put(tmp_path, "a", 2)
    bench = Bench()
    repository = bench.repository(tmp_path, mode=ControlMode.EXPLICIT, model_memory_bytes=250_000, meter=Disturbed())
    await repository.open()
    try:
        for charged, expected in ((200_000, 100_000), (120_000, 120_000)):
            await repository.load("a")
            assert repository.memory.ledger.by_model() == {"a": charged}
            assert [repository.memory.expected_bytes(each) for each in repository.memory.records()] == [expected]
            await repository.unload("a")
    finally:
        await repository.close()
