"""Loads unloaded models again before the next request that their arrival patterns predict."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Protocol

from triune.core.clock import Clock, Timer
from triune.core.statistics import ModelStatistics
from triune.core.threads import NoThreadError, in_thread
from triune.repository.memory.choice import Candidate, choose
from triune.repository.memory.keeper import MemoryKeeper
from triune.repository.memory.prefetch import read_ahead
from triune.repository.record import ModelRecord
from triune.repository.tasks import Tasks

_log = logging.getLogger(__name__)

_NS: Final = 1_000_000_000
_PERIOD_NS: Final = 1 * _NS
"""The time, in ns, between two calls of `Ahead.look`, which checks which models are in use or will be."""

_AHEAD_NS: Final = 2 * _PERIOD_NS
"""How long before its likely use, in ns, the load of a model should have ended."""

_AT_ONCE: Final = 50
"""How many models are looked at in one iteration of the event loop."""


class LoadsAhead(Protocol):
    """Protocol: loads a model that was unloaded to make room, if there is room."""

    async def load_again(self, record: ModelRecord, *, makes_room: bool = True) -> None:
        """Load the model of this record. Raises TriuneError if that fails."""
        ...


class Ahead:
    """Repeatedly loads unloaded models ahead of their next request. It starts when a model is first unloaded to make
    room.

    The load of a model begins so early that it ends `_AHEAD_NS` before the earliest time at which the model is likely
    to be needed. It begins only if there is room, or if unloading idle models that are needed later makes room.
    Otherwise its files are read into the system's file cache.
    """

    def __init__(self, keeper: MemoryKeeper, loads: LoadsAhead, clock: Clock, tasks: Tasks) -> None:
        """Args:
        keeper: knows the memory budget, and which models may be unloaded.
        loads: loads models.
        clock: the clock.
        tasks: runs loads that go on after `look` returns.
        """
        self._keeper = keeper
        self._loads = loads
        self._clock = clock
        self._tasks = tasks
        self._timer: Timer | None = None
        self._is_closed = False
        self._read_for: dict[str, int] = {}

    def start(self) -> None:
        """Begin to call `look` periodically, unless that has begun already."""
        if self._timer is None and not self._is_closed:
            self._schedule()

    def close(self) -> None:
        """Stop the periodic calls of `look`."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()

    async def look(self) -> None:
        """Check once which models are in use, and load one that will be needed soon."""
        now_ns = self._clock.now_ns()
        due: list[tuple[int, ModelRecord]] = []
        for number, record in enumerate(self._keeper.records(), 1):
            usage = record.usage
            if usage.was_used(_statistics_of(record)) or any(each.num_waiting for each in record.parked.values()):
                usage.pattern.see(now_ns)
            is_loadable = bool(record.parked) and not any(each.is_resting for each in record.parked.values())
            needed_ns = usage.pattern.needed_ns(now_ns) if is_loadable else None
            if needed_ns is not None and needed_ns - now_ns <= usage.load_ns + _AHEAD_NS:
                due.append((needed_ns, record))
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        for _, record in sorted(due, key=lambda each: each[0]):
            if record.parked and not record.num_loads and not self._is_closed:
                await self._prepare(record)

    def _schedule(self) -> None:
        self._timer = self._clock.call_at(self._clock.now_ns() + _PERIOD_NS, self._begin)

    def _begin(self) -> None:
        self._tasks.begin(self._look_and_go_on())

    async def _look_and_go_on(self) -> None:
        try:
            await self.look()
        finally:
            if not self._is_closed:
                self._schedule()

    async def _prepare(self, record: ModelRecord) -> None:
        """Load a model before its next request, after unloading idle models that are needed later if there is no room.
        If that does not make room, read its files into the system's cache.
        """
        lacking = self._keeper.expected_bytes(record) - self._keeper.ledger.free_bytes
        names = choose(await self._less_needed(record), lacking) if lacking > 0 else ()
        if lacking > 0 and not names:
            await self._read(record)
            return
        await self._keeper.room.park_all(names, f"model '{record.name}' is likely to be needed sooner")
        if self._keeper.expected_bytes(record) > self._keeper.ledger.free_bytes:
            return
        _log.info("model '%s' is loaded ahead: it is likely to be needed soon", record.name)
        record.usage.num_loaded_ahead += 1
        self._tasks.begin(self._loads.load_again(record, makes_room=False))

    async def _less_needed(self, record: ModelRecord) -> Sequence[Candidate]:
        """The models that may be unloaded to load `record`. A model that will probably be needed before the next
        use of `record` ends counts as busy.
        """
        now_ns = self._clock.now_ns()
        latest_ns = record.usage.pattern.latest_ns()
        patterns = {each.name: each.usage.pattern for each in self._keeper.records()}
        return [
            replace(each, is_idle=each.is_idle and patterns[each.name].likely_ns(now_ns) > latest_ns)
            for each in await self._keeper.room.candidates(record.name)
        ]

    async def _read(self, record: ModelRecord) -> None:
        """Read the files of a model into the system's file cache, once before each expected use."""
        source, last_ns = record.source, record.usage.pattern.last_ns
        if source is None or last_ns is None or self._read_for.get(record.name) == last_ns:
            return
        self._read_for[record.name] = last_ns
        try:
            for version in source.versions:
                await in_thread(read_ahead, source, version)
        except NoThreadError as error:
            _log.info("the files of model '%s' are not read ahead: %s", record.name, error)


def _statistics_of(record: ModelRecord) -> Sequence[ModelStatistics]:
    serving = record.serving()
    if serving:
        return [each.loaded.statistics for each in serving.values()]
    return [each.statistics for each in record.parked.values()]
