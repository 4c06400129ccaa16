"""Work that leaves the event loop: what is small does not wait behind what is large."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from support.parsing import size_when_released
from triune.frontends.bodies.budget import MemoryBudget
from triune.frontends.bodies.decoder import Decoder
from triune.frontends.bodies.offload import QUICK_BYTES, Offload
from triune.frontends.limits import Limits

SMALL, LARGE, HUGE = bytes(40_000), bytes(QUICK_BYTES + 1), bytes(9 << 20)


@contextlib.contextmanager
def opened() -> Iterator[tuple[Offload, Decoder, MemoryBudget]]:
    offload = Offload(num_threads=1, num_processes=1)
    try:
        yield offload, Decoder(Limits(), offload), MemoryBudget(1 << 30)
    finally:
        offload.close()


async def until(path: Path) -> None:
    async with asyncio.timeout(60):
        while not path.exists():
            await asyncio.sleep(0.01)


async def test_small_bodies_pass_large_ones(tmp_path: Path) -> None:
    begun, release = tmp_path / "begun", tmp_path / "release"
    work = partial(size_when_released, begun, release)
    with opened() as (_, decoder, budget):
        large = [asyncio.ensure_future(decoder.parse(work, LARGE, len(LARGE), budget.reserve())) for _ in range(3)]
        await until(begun)
        async with asyncio.timeout(60):
            for _ in range(3):
                assert await decoder.parse(len, SMALL, len(SMALL), budget.reserve()) == len(SMALL)
        assert not any(each.done() for each in large)
        assert budget.reserved_bytes == 10 * len(LARGE), "those that wait for their turn take no more memory yet"
        release.touch()
        assert await asyncio.gather(*large) == [len(LARGE)] * 3
        assert budget.reserved_bytes == 0


async def test_what_nobody_waits_for_is_not_parsed(tmp_path: Path) -> None:
    begun, skipped, never = tmp_path / "begun", tmp_path / "skipped", tmp_path / "never"
    with opened() as (_, decoder, budget):
        first = asyncio.ensure_future(
            decoder.parse(partial(size_when_released, begun, never), HUGE, len(HUGE), budget.reserve())
        )
        await until(begun)
        second = asyncio.ensure_future(
            decoder.parse(partial(size_when_released, skipped, never), HUGE, len(HUGE), budget.reserve())
        )
        await asyncio.sleep(0)
        for each in (second, first):
            each.cancel()
            with pytest.raises(asyncio.CancelledError):
                async with asyncio.timeout(60):
                    await each
        async with asyncio.timeout(60):
            assert await decoder.parse(len, HUGE, len(HUGE), budget.reserve()) == len(HUGE)
        assert not skipped.exists()


async def test_small_work_of_threads_passes_large_work() -> None:
    release = threading.Event()
    with opened() as (offload, _, _):
        long = [asyncio.ensure_future(offload.run_sized(len(LARGE), release.wait, 60)) for _ in range(3)]
        await asyncio.sleep(0)
        async with asyncio.timeout(60):
            assert await offload.run_sized(len(SMALL), len, SMALL) == len(SMALL)
        assert not any(each.done() for each in long)
        release.set()
        assert await asyncio.gather(*long) == [True] * 3


async def test_a_parser_is_there_before_the_first_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with opened() as (offload, decoder, budget):
        assert not list(tmp_path.iterdir())
        async with asyncio.timeout(60):
            await asyncio.wrap_future(offload.warm())
            assert await decoder.parse(len, LARGE, len(LARGE), budget.reserve()) == len(LARGE)
            before = sorted(tmp_path.iterdir())
            assert len(before) == 2, "each process has a temporary folder: large bodies have another process"
            assert await decoder.parse(len, SMALL, len(SMALL), budget.reserve()) == len(SMALL)
        assert sorted(tmp_path.iterdir()) == before
