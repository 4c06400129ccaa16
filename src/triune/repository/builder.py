"""Builds the versions of a model, each in a thread, and retries a build that fails."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from triune.backends.attempt import Attempt
from triune.backends.backend import Build
from triune.backends.registry import Backends
from triune.config.configure import Source
from triune.core.clock import Clock
from triune.core.errors import TriuneError, reworded
from triune.core.threads import in_thread, in_thread_or, in_thread_or_here
from triune.repository.failure import LoadFailedError
from triune.repository.memory.keeper import MemoryKeeper
from triune.repository.memory.ledger import Charge
from triune.repository.memory.meter import Growth
from triune.repository.memory.prefetch import read_ahead
from triune.repository.record import ModelRecord, Serving

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Priced:
    """A build and its charge to the memory budget.

    Attributes:
        build: the loaded version.
        charge: the bytes of the memory budget that the build takes.
        before: the charge of the served version that the build replaces and may share executables with. The new version
            takes this charge over; None if it replaces none.
    """

    build: Build
    charge: Charge
    before: Charge | None = None


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A build, the memory that it added to this process, and the memory of its worker processes."""

    build: Build
    growth: Growth
    process_bytes: int


class VersionBuilder:
    """Builds all versions of a model, or none of them."""

    def __init__(
        self,
        backends: Backends,
        num_retries: int,
        begin: Callable[[Coroutine[Any, Any, None]], object],
        memory: MemoryKeeper,
        clock: Clock,
    ) -> None:
        """Args:
        backends: build versions.
        num_retries: how often a version that fails is tried again.
        begin: starts a coroutine as a task, to free the results of a cancelled build.
        memory: makes room for each version, or refuses it.
        clock: the clock.
        """
        self._backends = backends
        self._num_retries = num_retries
        self._begin = begin
        self._memory = memory
        self._clock = clock

    async def build(self, record: ModelRecord, source: Source, *, makes_room: bool) -> Sequence[Priced | Serving]:
        """Build all versions. Served versions that have not changed are kept.

        Args:
            record: the model.
            source: the model on disk.
            makes_room: whether other models may be unloaded for it.

        Raises:
            LoadFailedError: a version failed.
        """
        serving = record.serving()
        built: list[Priced | Serving] = []
        errors: dict[int, TriuneError] = {}
        for version in source.versions:
            old = serving.get(version)
            try:
                if old is not None and await in_thread(old.build.is_current, source):
                    built.append(old)
                    continue
                built.append(await self._build_charged(record, source, version, old, makes_room=makes_room))
            except TriuneError as error:
                errors[version] = error
            except asyncio.CancelledError:
                self._begin(free(built))
                raise
        if not errors:
            return built
        await free(built)
        problem = "; ".join(f"version {version}: {error}" for version, error in errors.items())
        spoilt = f"not served, because the model failed to load as a whole: {problem}"
        reasons = {each: str(errors.get(each, spoilt)) for each in source.versions}
        first = next(iter(errors.values()))
        error = reworded(first, f"load failed for model '{record.name}': {problem}")
        raise LoadFailedError(error, problem, reasons) from first

    async def _build_charged(
        self, record: ModelRecord, source: Source, version: int, old: Serving | None, *, makes_room: bool
    ) -> Priced:
        """Reserve memory for a version, build it, and charge the memory that it takes."""
        if old is not None and old.build.has_files_of(source):
            # Charge nothing more: the new version takes over the executables of the version that serves now, and its
            # charge.
            charge, before = self._memory.ledger.charge(record.name, 0), old.charge
        else:
            charge, before = await self._memory.reserve(record, source, version, makes_room=makes_room), None
        begun_ns = self._clock.now_ns()
        try:
            previous = old.build if old is not None else None
            loaded = await self._build_version(source, version, previous)
        except BaseException:
            charge.release()
            raise
        record.usage.load_ns = self._clock.now_ns() - begun_ns
        if before is None:
            self._memory.settle(record, loaded.build, charge, loaded.growth, loaded.process_bytes)
        else:
            charge.resize((loaded.growth.own_bytes or 0) + loaded.process_bytes)
        return Priced(loaded.build, charge, before)

    async def _build_version(self, source: Source, version: int, previous: Build | None) -> _Loaded:
        for attempt in range(1, self._num_retries + 1):
            try:
                return await self._attempt(source, version, previous)
            except TriuneError as error:
                _log.warning(
                    "model '%s' version %d does not load and is tried again (%d of %d): %s",
                    source.name,
                    version,
                    attempt,
                    self._num_retries,
                    error,
                )
        return await self._attempt(source, version, previous)

    async def _attempt(self, source: Source, version: int, previous: Build | None) -> _Loaded:
        attempt = Attempt()
        try:
            return await in_thread_or(_drop, self._measured, source, version, previous, attempt)
        except asyncio.CancelledError:
            self._begin(in_thread_or_here(attempt.give_up))
            raise

    def _measured(self, source: Source, version: int, previous: Build | None, attempt: Attempt) -> _Loaded:
        """Build a version, and measure the memory that it adds to this process and its workers. Runs in a thread."""
        read_ahead(source, version)
        self._memory.meter.begin()
        try:
            build = self._backends.build(source, version, previous, attempt)
        except BaseException:
            self._memory.meter.leave()
            raise
        return _Loaded(build, self._memory.meter.end(), build.process_bytes())


def _drop(loaded: _Loaded) -> None:
    loaded.build.close()


async def free(built: Sequence[Priced | Serving]) -> None:
    """Free the new builds. Versions that serve already stay as they are."""
    for each in built:
        if isinstance(each, Priced):
            await in_thread_or_here(each.build.close)
            each.charge.release()
