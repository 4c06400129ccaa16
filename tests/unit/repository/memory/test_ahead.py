"""Models that are loaded before they are asked for, on a virtual clock."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.repositories import Bench
from triune.core.clock import VirtualClock
from triune.repository.memory import ahead
from triune.repository.repository import Repository
from unit.repository.memory.test_keeper import PINNED, Blind, answer, loaded, put

S = 1_000_000_000


class Timed:
    """A repository on a virtual clock."""

    def __init__(self, repository: Repository, clock: VirtualClock) -> None:
        self.repository = repository
        self.clock = clock

    async def go(self, seconds: float) -> None:
        """Let time pass, and everything that it brings about."""
        end_ns = self.clock.now_ns() + round(seconds * S)
        while self.clock.now_ns() < end_ns:
            self.clock.advance(S // 4)
            await self.quiet()

    async def quiet(self) -> None:
        """Wait until no load and no unload is under way."""
        for _ in range(20):
            await asyncio.sleep(0)
        while any(each.num_loads or each.lock.locked() for each in self.repository.memory.records()):
            await asyncio.sleep(0.001)

    async def ask(self, name: str, value: float = 1.0) -> float:
        """An answer, for which time passes if it must."""
        asked = asyncio.create_task(answer(self.repository, name, value))
        while not asked.done():
            self.clock.advance(S // 100)
            await asyncio.sleep(0.001)
        return asked.result()

    def count(self, name: str) -> int:
        return self.repository.memory._residents.models[name].usage.num_loaded_ahead


@asynccontextmanager
async def opened(path: Path, budget: int) -> AsyncIterator[Timed]:
    clock, bench = VirtualClock(), Bench()
    repository = bench.repository(path, clock=clock, model_memory_bytes=budget, meter=Blind())
    # A pinned model may have to wait for the others, for which time passes.
    opening = asyncio.create_task(repository.open())
    while not opening.done():
        clock.advance(S // 100)
        await asyncio.sleep(0.001)
    opening.result()
    try:
        yield Timed(repository, clock)
        repository.memory.ledger.check()
    finally:
        await asyncio.wait_for(repository.close(), 60)
        assert bench.num_open == 0


async def test_a_periodic_model_is_loaded_before_its_next_use(tmp_path: Path) -> None:
    put(tmp_path, "periodic", 2)
    put(tmp_path, "other", 3)
    async with opened(tmp_path, 150_000) as timed:
        for _ in range(4):
            assert await timed.ask("periodic") == 2
            await timed.go(30)
            assert await timed.ask("other") == 3
            assert loaded(timed.repository) == {"other"}
            await timed.go(30)
        assert timed.count("periodic") == 1, "after three idle times of a minute the fourth is known"
        assert loaded(timed.repository) == {"periodic"}
        assert "is likely to be needed sooner" in _reason(timed.repository, "other")
        assert await timed.ask("periodic") == 2
        await timed.go(30)
        assert await timed.ask("other") == 3
        await timed.go(18)
        assert loaded(timed.repository) == {"other"}, "not long before it is needed"
        await timed.go(8)
        assert loaded(timed.repository) == {"periodic"}


async def test_one_that_is_needed_sooner_is_not_unloaded_for_it_and_files_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    monkeypatch.setattr(ahead, "read_ahead", lambda source, version: read.append(source.name))
    put(tmp_path, "periodic", 2)
    put(tmp_path, "other", 3)
    async with opened(tmp_path, 150_000) as timed:
        for _ in range(5):
            await timed.ask("periodic")
            for _ in range(10):
                await timed.go(5)
                await timed.ask("other")
            await timed.go(4)
            assert loaded(timed.repository) == {"other"}, "it is asked every five seconds"
        assert timed.count("periodic") == 0
        assert 1 <= read.count("periodic") <= 2, "once before each use that was foreseen"


async def test_a_pinned_one_and_a_busy_one_are_not_unloaded_for_it(tmp_path: Path) -> None:
    put(tmp_path, "kept", 5, config=PINNED)
    put(tmp_path, "periodic", 2)
    put(tmp_path, "other", 3)
    async with opened(tmp_path, 250_000) as timed:
        for _ in range(4):
            await timed.ask("periodic")
            await timed.go(30)
            await timed.ask("other")
            await timed.go(30)
        assert loaded(timed.repository) == {"kept", "periodic"}


async def test_where_no_model_was_unloaded_nobody_looks(tmp_path: Path) -> None:
    put(tmp_path, "a", 2)
    async with opened(tmp_path, 150_000) as timed:
        await timed.ask("a")
        before = timed.clock.next_ns()
        await timed.go(20)
        assert timed.repository._lifecycle.residency.ahead._timer is None
        assert before is None or before > 20 * S


async def test_looking_at_many_models_yields_to_the_loop(tmp_path: Path) -> None:
    put(tmp_path, "a", 2, size=100_000)
    put(tmp_path, "b", 2, size=100_000)
    async with opened(tmp_path, 150_000) as timed:
        keeper = timed.repository.memory
        lifecycle = timed.repository._lifecycle
        for number in range(200):
            lifecycle.record(f"more{number}")
        turns = 0

        def turn() -> None:
            nonlocal turns
            turns += 1
            asyncio.get_running_loop().call_soon(turn)

        turn()
        await lifecycle.residency.ahead.look()
        assert turns >= len(keeper.records()) // 50


def _reason(repository: Repository, name: str) -> str:
    return next(each.reason for each in repository.index() if each.name == name)
