"""Keeps the models within the memory budget: charges the memory of each, and reloads models that were unloaded to make
room.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from triune.backends.backend import Build
from triune.config.configure import Source
from triune.core.clock import Clock
from triune.repository.memory.estimate import weight_files
from triune.repository.memory.ledger import Charge, MemoryLedger
from triune.repository.memory.meter import Growth, LoadMeter
from triune.repository.memory.room import Residents, Room
from triune.repository.memory.usage import Measured
from triune.repository.record import ModelRecord
from triune.repository.tasks import Tasks
from triune.scheduling.models import LoadedVersion

_MOST_UNCERTAIN: Final = 2
"""If the memory of a loaded model is uncertain, its charge is at most this many times its estimate (docs/memory.md has
measurements).
"""


@dataclass(frozen=True, slots=True)
class _Overlapped:
    """A load that overlapped with others: the model's record, the build, its charge, and the bytes of its worker
    processes.
    """

    record: ModelRecord
    build: Build
    charge: Charge
    process_bytes: int


class MemoryKeeper:
    """Charges models for their memory and makes room for loads: see the module. Only the event loop's thread uses it.

    Attributes:
        ledger: the charges of all models.
        meter: measures loads.
        room: makes room for loads.
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
        residents: the models whose memory counts.
        clock: the clock.
        tasks: runs operations that go on if their caller is cancelled.
        is_pinned_by_default: whether a model stays loaded if its config does not say whether it does.
        meter: measures loads; None measures this process.
        """
        self.ledger = ledger
        self.meter = meter or LoadMeter()
        self._residents = residents
        self._clock = clock
        self._tasks = tasks
        self.room = Room(ledger, residents, clock, tasks, is_pinned_by_default=is_pinned_by_default)
        self._group = 0
        self._overlapped: list[_Overlapped] = []
        self._waking: dict[str, tuple[asyncio.Task[None], int]] = {}

    def get(self, name: str, version: int | None = None) -> LoadedVersion:
        """A version that answers requests: see `Models.get`."""
        return self._residents.get(name, version)

    async def reserve(self, record: ModelRecord, source: Source, version: int, *, makes_room: bool) -> Charge:
        """Charge a version before it is loaded: by its memory at the last load, or by an estimate.

        Args:
            record: the model.
            source: the source to load.
            version: the version.
            makes_room: whether to unload other models to make room, and to wait until they are unloaded.

        Raises:
            UnsupportedError: the version needs more than the whole budget.
            NoRoomError: there is no room, and none can be made.
        """
        files = source.stamp.versions.get(version, {})
        num_bytes = record.usage.expected_bytes(source.message, version, files)
        return await self.room.charge(record, version, num_bytes, makes_room=makes_room)

    def settle(self, record: ModelRecord, build: Build, charge: Charge, growth: Growth, process_bytes: int) -> None:
        """Charge the memory that a loaded version takes. If it takes more than was free, unload other models.

        Args:
            record: the model.
            build: the loaded version.
            charge: the charge of the version, which is changed.
            growth: the memory that the load added to this process.
            process_bytes: the memory of the version's worker processes, in bytes.
        """
        message, files = build.source.message, build.source.stamp.versions.get(build.version, {})
        # Charge at least the weights and caches. The process may grow by less if the load used memory that was freed
        # before, if a cache was not written to yet, or if a unit has memory of its own.
        least = sum(weight_files(files).values()) + build.cache_bytes
        before = record.usage.measured_bytes(message, build.version, files) or 0
        expected = 0 if growth.own_bytes is not None and growth.is_certain else charge.num_bytes
        grown = growth.own_bytes or 0
        if not growth.is_certain:
            # Limit the charge: most of the growth may be memory of requests, for which no other model should be
            # unloaded.
            grown = min(grown, _MOST_UNCERTAIN * expected)
        charge.resize(max(grown + process_bytes, expected, least, before))
        if growth.own_bytes is not None:
            if growth.is_certain:
                record.usage.measured[build.version] = Measured(files, message, charge.num_bytes)
        else:
            self._settle_group(_Overlapped(record, build, charge, process_bytes), growth)
        self.room.shrink(record)

    def _settle_group(self, load: "_Overlapped", growth: Growth) -> None:
        """Charge loads that overlapped: the memory that they added together is divided in proportion to their
        charges.
        """
        if growth.group != self._group:
            self._group, self._overlapped = growth.group, []
        self._overlapped.append(load)
        if growth.group_bytes is None:
            return
        total = growth.group_bytes + sum(each.process_bytes for each in self._overlapped)
        charged = sum(each.charge.num_bytes for each in self._overlapped)
        if not growth.is_certain:
            total = min(total, _MOST_UNCERTAIN * charged)
        if total > charged > 0:
            for each in self._overlapped:
                each.charge.resize(each.charge.num_bytes * total // charged)
                source, version = each.build.source, each.build.version
                files = source.stamp.versions.get(version, {})
                if growth.is_certain:
                    each.record.usage.measured[version] = Measured(files, source.message, each.charge.num_bytes)
        self._overlapped = []

    def wake(self, name: str) -> "asyncio.Future[None]":
        """Begin to load a model that was unloaded to make room: see `Waking.wake`."""
        now = self._waking.get(name)
        if now is None or now[0].done():
            record = self._residents.models[name]
            now = self._waking[name] = (self._tasks.begin(self._residents.load_again(record)), self._clock.now_ns())
            now[0].add_done_callback(lambda _: self._waking.pop(name, None))
        return now[0]

    def records(self) -> Sequence[ModelRecord]:
        """The records of all models, by name."""
        return [self._residents.models[name] for name in sorted(self._residents.models)]

    def touch(self, name: str) -> None:
        """Do not unload a model for a moment, since a client is about to send it a request."""
        if (record := self._residents.models.get(name)) is not None:
            record.usage.touched_ns = self._clock.now_ns()

    def expected_ns(self, name: str) -> int:
        """The expected time until a model is loaded, in ns: see `Waking.expected_ns`."""
        record, waking = self._residents.models.get(name), self._waking.get(name)
        if record is None:
            return 0
        begun_ns = waking[1] if waking is not None else self._clock.now_ns()
        return max(0, record.usage.load_ns - (self._clock.now_ns() - begun_ns))

    def expected_bytes(self, record: ModelRecord) -> int:
        """The expected memory of a model that was unloaded to make room, in bytes, for all of its versions."""
        source = record.source
        if source is None:
            return 0
        files = source.stamp.versions
        return sum(
            record.usage.expected_bytes(source.message, version, files.get(version, {})) for version in source.versions
        )
