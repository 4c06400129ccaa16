"""Keeps the models within the memory budget: admits loads, unloads idle models for room, and loads them again."""

import asyncio
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from triune.backends.backend import Build
from triune.config.configure import Source
from triune.config.parameters import is_pinned
from triune.core.clock import Clock
from triune.core.errors import NoRoomError, UnsupportedError
from triune.repository.memory.choice import Candidate, choose, first_to_drain
from triune.repository.memory.estimate import weight_files
from triune.repository.memory.ledger import Charge, MemoryLedger
from triune.repository.memory.meter import Growth, LoadMeter
from triune.repository.memory.parked import wake_up
from triune.repository.memory.usage import Measured
from triune.repository.record import ModelRecord
from triune.repository.tasks import Tasks
from triune.scheduling.models import LoadedVersion

_log = logging.getLogger(__name__)

_NS: Final = 1_000_000_000
_PATIENCE_NS: Final = 1 * _NS
"""How long a load waits for a model to become idle. Then one that is busy finishes its requests, and new ones wait."""

_SHORTEST_PAUSE_NS: Final = 5_000_000
_LONGEST_PAUSE_NS: Final = 80_000_000
"""How long a load that waits for room pauses before it looks again."""

_AT_ONCE: Final = 20
"""The models that are looked at in one turn of the event loop."""

_MOST_NAMED: Final = 8
"""The models that a refusal names, the largest first."""

_LONGEST_STAY_NS: Final = 10 * _NS
"""How long a model that was just loaded keeps its place at most, if its load took longer."""

_SHRINK_NS: Final = 10 * _NS
"""How long models are unloaded as they become idle, after one took more than was expected."""

_TOUCH_NS: Final = 2 * _NS
"""How long a model counts as busy after a front end asked for it: the request may still be read into tokens."""


class Residents(Protocol):
    """The models, as far as their memory is concerned."""

    @property
    def models(self) -> Mapping[str, ModelRecord]:
        """The records of all models."""
        ...

    def is_in_ensemble(self, name: str) -> bool:
        """Whether a model is made of others, or others are made of it."""
        ...

    async def park(self, record: ModelRecord, why: str) -> None:
        """Unload a model for room: it is loaded again when a request comes."""
        ...

    async def load_again(self, record: ModelRecord, *, makes_room: bool = True) -> None:
        """Load a model that was unloaded for room, for which others may be unloaded. Raises TriuneError."""
        ...

    def get(self, name: str, version: int | None = None) -> LoadedVersion:
        """A version that answers requests: see `Models.get`."""
        ...


@dataclass(frozen=True, slots=True)
class _Overlapped:
    """A load that others overlapped: the model, the version, its charge, and the memory of its worker processes."""

    record: ModelRecord
    build: Build
    charge: Charge
    process_bytes: int


class MemoryKeeper:
    """See the module. Its state belongs to the event loop's thread.

    Attributes:
        ledger: what is charged.
        meter: measures loads.
    """

    def __init__(
        self,
        ledger: MemoryLedger,
        residents: Residents,
        clock: Clock,
        tasks: Tasks,
        *,
        is_pinned_by_default: bool,
        meter: LoadMeter | None = None,
    ) -> None:
        """Args:
        ledger: the budget.
        residents: the models.
        clock: the clock.
        tasks: runs what must outlive its caller.
        is_pinned_by_default: whether models whose configs do not say so stay loaded.
        meter: measures loads; None measures this process.
        """
        self.ledger = ledger
        self.meter = meter or LoadMeter()
        self._residents = residents
        self._clock = clock
        self._tasks = tasks
        self._is_pinned_by_default = is_pinned_by_default
        self._making = asyncio.Lock()
        self._is_shrinking = self._is_closed = False
        self._group = 0
        self._overlapped: list[_Overlapped] = []
        self._waking: dict[str, tuple[asyncio.Task[None], int]] = {}

    def is_pinned(self, source: Source) -> bool:
        """Whether the model stays loaded when others need room. Raises InvalidArgumentError for a wrong parameter."""
        return is_pinned(source.message, by_default=self._is_pinned_by_default)

    def get(self, name: str, version: int | None = None) -> LoadedVersion:
        """A version that answers requests: see `Models.get`."""
        return self._residents.get(name, version)

    async def reserve(self, record: ModelRecord, source: Source, version: int, *, makes_room: bool) -> Charge:
        """Charge a version before it is loaded, by what it took before or by an estimate.

        Args:
            record: the model.
            source: what is loaded.
            version: the version.
            makes_room: whether others may be unloaded for it, and waited for.

        Raises:
            UnsupportedError: it is larger than the whole budget.
            NoRoomError: there is no room, and none can be made.
        """
        files = source.stamp.versions.get(version, {})
        num_bytes = record.usage.expected_bytes(source.message, version, files)
        if num_bytes > self.ledger.largest_bytes:
            record.usage.num_refused += 1
            raise UnsupportedError(
                f"it takes {num_bytes} bytes of memory, by {_source_of(record, version)}, and all "
                f"models together may take {self.ledger.largest_bytes}{self._fixed()}: allow them more by "
                "--model-memory-bytes if the machine has it, or compress the model"
            )
        if num_bytes <= self.ledger.free_bytes and not self._making.locked():
            return self.ledger.charge(record.name, num_bytes)
        if not makes_room:
            raise self._no_room(record, version, num_bytes)
        async with self._making:
            await self._make_room(record, version, num_bytes)
            return self.ledger.charge(record.name, num_bytes)

    def settle(self, record: ModelRecord, build: Build, charge: Charge, growth: Growth, process_bytes: int) -> None:
        """Charge what a version takes, now that it is loaded, and make room where it is more than was free.

        Args:
            record: the model.
            build: the loaded version.
            charge: its charge.
            growth: what its load has added to the memory of this process.
            process_bytes: the memory of its worker processes.
        """
        message, files = build.source.message, build.source.stamp.versions.get(build.version, {})
        # The growth is less than what is used where freed memory is used again, where a cache is not touched yet, and
        # where a unit's memory is not the process's.
        least = sum(weight_files(files).values()) + build.cache_bytes
        before = record.usage.measured_bytes(message, build.version, files) or 0
        known = charge.num_bytes if growth.own_bytes is None else growth.own_bytes + process_bytes
        charge.resize(max(known, least, before, process_bytes))
        if growth.own_bytes is not None:
            record.usage.measured[build.version] = Measured(files, message, charge.num_bytes)
        else:
            self._settle_group(_Overlapped(record, build, charge, process_bytes), growth)
        if self.ledger.free_bytes < 0 and not self._is_shrinking:
            self._is_shrinking = True
            self._tasks.begin(self._shrink(record))

    def _settle_group(self, load: "_Overlapped", growth: Growth) -> None:
        """Charge loads that overlapped with what they have added together, each in proportion to its charge."""
        if growth.group != self._group:
            self._group, self._overlapped = growth.group, []
        self._overlapped.append(load)
        if growth.group_bytes is None:
            return
        total = growth.group_bytes + sum(each.process_bytes for each in self._overlapped)
        charged = sum(each.charge.num_bytes for each in self._overlapped)
        if total > charged > 0:
            for each in self._overlapped:
                each.charge.resize(each.charge.num_bytes * total // charged)
                source, version = each.build.source, each.build.version
                files = source.stamp.versions.get(version, {})
                each.record.usage.measured[version] = Measured(files, source.message, each.charge.num_bytes)
        self._overlapped = []

    def wake(self, name: str) -> "asyncio.Future[None]":
        """Begin to load a model that was unloaded for room: see `Waking.wake`."""
        now = self._waking.get(name)
        if now is None or now[0].done():
            record = self._residents.models[name]
            now = self._waking[name] = (self._tasks.begin(self._residents.load_again(record)), self._clock.now_ns())
            now[0].add_done_callback(lambda _: self._waking.pop(name, None))
        return now[0]

    def close(self) -> None:
        """Make no more room: the server is stopping."""
        self._is_closed = True

    def records(self) -> Sequence[ModelRecord]:
        """The records of all models, by name."""
        return [self._residents.models[name] for name in sorted(self._residents.models)]

    def touch(self, name: str) -> None:
        """Keep a model for a moment: someone is about to send it a request."""
        if (record := self._residents.models.get(name)) is not None:
            record.usage.touched_ns = self._clock.now_ns()

    def expected_ns(self, name: str) -> int:
        """The time until a model is loaded: see `Waking.expected_ns`."""
        record, waking = self._residents.models.get(name), self._waking.get(name)
        if record is None:
            return 0
        begun_ns = waking[1] if waking is not None else self._clock.now_ns()
        return max(0, record.usage.load_ns - (self._clock.now_ns() - begun_ns))

    def expected_bytes(self, record: ModelRecord) -> int:
        """What a model will take that is unloaded for room, all its versions together."""
        source = record.source
        if source is None:
            return 0
        files = source.stamp.versions
        return sum(
            record.usage.expected_bytes(source.message, version, files.get(version, {})) for version in source.versions
        )

    async def candidates(self, name: str) -> Sequence[Candidate]:
        """The models that may be unloaded for `name`. Other work of the loop goes on in between."""
        return (await self._survey(name))[0]

    async def park_all(self, names: Sequence[str], why: str) -> None:
        """Unload models for room, after their requests have finished. It goes on if the caller is cancelled."""
        parks = [self._tasks.begin(self._park(name, why)) for name in names]
        if parks:
            await asyncio.wait(parks)

    async def _park(self, name: str, why: str) -> None:
        if (record := self._residents.models.get(name)) is not None:
            await self._residents.park(record, why)

    def _may_go(self, record: ModelRecord) -> bool:
        """Whether a model may be unloaded now."""
        return bool(record.serving()) and not record.num_loads and not record.lock.locked() and self._can_go(record)

    def _can_go(self, record: ModelRecord) -> bool:
        """Whether a model may be unloaded at some time, perhaps when its load or unload has ended."""
        source = record.source
        if source is None or record.override is not None or self._residents.is_in_ensemble(record.name):
            return source is None
        return not self.is_pinned(source)

    async def _survey(self, name: str) -> tuple[Sequence[Candidate], int]:
        """The models that may be unloaded for `name` now, and the bytes that may become free, sooner or later."""
        candidates: list[Candidate] = []
        leaving = self.ledger.leaving()
        obtainable_bytes = sum(each.num_bytes for each in leaving)
        for number, (charged, num_bytes) in enumerate(self.ledger.by_model().items(), 1):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
            record = self._residents.models.get(charged)
            if charged == name or (record is not None and not self._can_go(record)):
                continue
            obtainable_bytes += num_bytes - sum(each.num_bytes for each in leaving if each.name == charged)
            if num_bytes and record is not None and self._may_go(record):
                now_ns, usage = self._clock.now_ns(), record.usage
                # It keeps its place for as long as its load took: else loads would take all the time.
                is_settled = now_ns >= usage.loaded_ns + min(usage.load_ns, _LONGEST_STAY_NS)
                is_idle = self._is_idle(record, now_ns)
                candidates.append(Candidate(charged, num_bytes, is_idle, _used(record), is_settled))
        return candidates, obtainable_bytes

    def _is_idle(self, record: ModelRecord, now_ns: int) -> bool:
        usage = record.usage
        if usage.touched_ns is not None and now_ns < usage.touched_ns + _TOUCH_NS:
            return False
        return not any(
            each.loaded.statistics.num_pending or each.loaded.holds.num for each in record.serving().values()
        )

    async def _make_room(self, record: ModelRecord, version: int, num_bytes: int) -> None:
        """Unload models until `num_bytes` are free. Raises NoRoomError."""
        patient_until_ns = self._clock.now_ns() + _PATIENCE_NS
        pause_ns = _SHORTEST_PAUSE_NS
        while num_bytes > self.ledger.free_bytes:
            candidates, obtainable_bytes = await self._survey(record.name)
            lacking = num_bytes - self.ledger.free_bytes
            if lacking > obtainable_bytes:
                raise self._no_room(record, version, num_bytes)
            lacking -= self.ledger.leaving_bytes
            names = choose(candidates, lacking) if lacking > 0 else ()
            if not names and lacking > 0 and self._clock.now_ns() >= patient_until_ns:
                first = first_to_drain(candidates, lacking)
                names = [first] if first is not None else ()
            if names:
                why = f"model '{record.name}' needed {num_bytes} bytes"
                await self.park_all(names, why)
            else:
                await self._pause(pause_ns)
                pause_ns = min(2 * pause_ns, _LONGEST_PAUSE_NS)

    async def _pause(self, pause_ns: int) -> None:
        over = asyncio.get_running_loop().create_future()
        timer = self._clock.call_at(self._clock.now_ns() + pause_ns, lambda: wake_up(over))
        try:
            await over
        finally:
            timer.cancel()

    async def _shrink(self, record: ModelRecord) -> None:
        """Unload models as they become idle, since one turned out to take more than there was room for."""
        until_ns = self._clock.now_ns() + _SHRINK_NS
        while self.ledger.free_bytes < 0 and self._clock.now_ns() < until_ns and not self._is_closed:
            if not self._making.locked():
                async with self._making:
                    # It has no time: the memory is in use already.
                    candidates = [replace(each, is_settled=True) for each in await self.candidates(record.name)]
                    names = choose(candidates, -self.ledger.free_bytes - self.ledger.leaving_bytes)
                    await self.park_all(names, f"model '{record.name}' took more than was expected")
            await self._pause(_LONGEST_PAUSE_NS)
        self._is_shrinking = False
        if self.ledger.free_bytes < 0:
            _log.warning(
                "models take %d bytes of memory, more than the %d of --model-memory-bytes, and no idle one can be "
                "unloaded: %s",
                self.ledger.used_bytes,
                self.ledger.budget_bytes,
                self._holders(),
            )

    def _no_room(self, record: ModelRecord, version: int, num_bytes: int) -> NoRoomError:
        record.usage.num_refused += 1
        seconds = max(1, math.ceil(record.usage.load_ns / _NS))
        return NoRoomError(
            f"it takes {num_bytes} bytes of memory, by {_source_of(record, version)}, of which "
            f"{max(0, self.ledger.free_bytes)} of {self.ledger.budget_bytes} are free: {self._holders()}; try again "
            "later, unload one of these, or allow models more by --model-memory-bytes",
            retry_after_seconds=seconds,
        )

    def _holders(self) -> str:
        """What takes the memory, with the reason why it stays."""
        words = [f"{name} takes {num_bytes}" for name, num_bytes in self.ledger.fixed.items()]
        now_ns = self._clock.now_ns()
        charged = sorted(self.ledger.by_model().items(), key=lambda each: -each[1])
        for name, num_bytes in charged[:_MOST_NAMED]:
            record = self._residents.models.get(name)
            words.append(f"'{name}' takes {num_bytes}{self._why(record, now_ns) if record is not None else ''}")
        if others := charged[_MOST_NAMED:]:
            words.append(f"{len(others)} more take {sum(num_bytes for _, num_bytes in others)}")
        return ", ".join(words) or "no model takes any"

    def _why(self, record: ModelRecord, now_ns: int) -> str:
        if record.source is not None and self.is_pinned(record.source):
            return " (pinned)"
        if self._residents.is_in_ensemble(record.name):
            return " (part of an ensemble)"
        if not record.serving():
            return " (loading or ending)"
        return "" if self._is_idle(record, now_ns) else " (busy)"

    def _fixed(self) -> str:
        return "".join(f", less {num_bytes} of {name}" for name, num_bytes in self.ledger.fixed.items())


def _source_of(record: ModelRecord, version: int) -> str:
    return "what it took before" if version in record.usage.measured else "the size of its files"


def _used(record: ModelRecord) -> tuple[int, ...]:
    """When a model was used last: the time of its last answer, then that of its load."""
    answered_ms = max(each.loaded.statistics.last_inference_ms for each in record.serving().values())
    return max(answered_ms, record.usage.loaded_ms), record.usage.loaded_ns
