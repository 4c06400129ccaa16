"""Loads, replaces and unloads versions while requests run: build, swap, drain, close."""

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from triune.backends.registry import Backends
from triune.config.configure import Source, parameters_of, read_source
from triune.config.limits import LoadLimit, limits_of
from triune.config.stamps import Stamp
from triune.config.unsupported import log_hints
from triune.core.clock import Clock
from triune.core.errors import InvalidArgumentError, TriuneError, forget_frames, reworded
from triune.core.threads import NoThreadError, in_thread
from triune.repository.builder import Priced, VersionBuilder, free
from triune.repository.dependencies import Dependencies, Needs
from triune.repository.failure import LoadFailedError, failure_of, give_up_late, stopping_error, unloaded_error
from triune.repository.folder_stamps import FolderStamps
from triune.repository.load_slots import LoadSlots
from triune.repository.memory.meter import LoadMeter
from triune.repository.names import require_free
from triune.repository.override import Override
from triune.repository.record import UNLOADED, ModelRecord, Remembered, Serving
from triune.repository.residency import Residency
from triune.repository.retiring import Retiring, remove
from triune.repository.settings import RepositorySettings
from triune.repository.tasks import Tasks
from triune.runtimes.machine import Machine
from triune.scheduling.models import LoadedVersion, Models

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

_PATIENCE_NS = 5_000_000_000
"""How long, in ns, the next load in line waits for running loads. Then it starts anyway, since running loads may never
end.
"""


async def _bring_nothing(name: str) -> None:
    """The default for `bring`, which loads a model that another needs: load nothing."""


class Lifecycle:
    """All models that were ever requested, and the versions that serve.

    Attributes:
        models: the records of the models, by name.
        stamps: computes the fingerprints of the models' folders.
        dependencies: which models need which other models.
        ready: the versions that take requests, by name and version; the key None is the newest version. Each is READY,
            or was unloaded to make room.
        residency: unloads models to make room, and loads them again.
        memory: keeps the models within the memory budget.
        tasks: the operations on models, for which `close` waits.
    """

    def __init__(
        self,
        backends: Backends,
        models: Models,
        machine: Machine,
        clock: Clock,
        settings: RepositorySettings,
        bring: Callable[[str], Awaitable[None]] = _bring_nothing,
        meter: LoadMeter | None = None,
    ) -> None:
        """Args:
        backends: build versions.
        models: all models that are served; ensembles and other models that call models find them here.
        machine: the machine to load models on.
        clock: the clock.
        settings: settings of completion, the number of concurrent loads, time limits and retries.
        bring: loads the model with this name, which another model needs, if the control mode allows that.
        meter: measures how much memory loads take; None measures this process.
        """
        self.models: dict[str, ModelRecord] = {}
        self.ready: dict[str, dict[int | None, LoadedVersion]] = {}
        self.stamps = FolderStamps(clock)
        self.dependencies = Dependencies(models, self.models, bring)
        self._backends = backends
        self._served = models
        self._machine = machine
        self._settings = settings.models
        self.tasks = Tasks()
        self._clock = clock
        self._retiring = Retiring()
        self.residency = Residency(self, models, backends, settings, clock, self._retiring, meter)
        self.memory = self.residency.memory
        begin, num_retries = self.tasks.begin, settings.num_load_retries
        self._builder = VersionBuilder(backends, num_retries, begin, self.memory, clock)
        self._slots = LoadSlots(settings.num_load_threads, _PATIENCE_NS, clock)
        self._is_closing = False

    def record(self, name: str) -> ModelRecord:
        """The record of a model; created if there is none."""
        return self.models.setdefault(name, ModelRecord(name))

    async def load(
        self,
        name: str,
        folder: Path,
        config_json: str | None = None,
        override: Override | None = None,
        *,
        makes_room: bool = False,
    ) -> None:
        """Build all versions that the version policy selects, then replace the served versions atomically.

        Versions that have not changed go on with their requests and statistics.

        Args:
            name: the model.
            folder: the model's folder, or the folder of `override`.
            config_json: replaces config.pbtxt. If it is None and nothing has changed since the last load, that load's
                config applies.
            override: the folder with the files of the load request. It is removed when the model is unloaded, or if the
                load fails.
            makes_room: whether other models may be unloaded to make room. If not, and there is no room, the model is
                loaded when its first request comes, unless it is pinned.

        Raises:
            TriuneError: the load failed; the versions that served before go on. The record has the reason.
        """
        record = self.record(name)
        record.num_loads += 1
        num_unloads = record.num_unloads
        try:
            async with record.lock:
                if record.num_unloads != num_unloads:
                    await remove(override)
                    raise unloaded_error(name)
                await self._load(record, folder, config_json, override, makes_room=makes_room)
        finally:
            record.num_loads -= 1

    async def unload(self, record: ModelRecord) -> None:
        """Refuse new requests, finish the pending ones, and free the model. A running load is cancelled."""
        record.num_unloads += 1
        record.give_up(unloaded_error(record.name))
        async with record.lock:
            servings = list(record.serving().values())
            self.ready.pop(record.name, None)
            for parked in record.parked.values():
                parked.refuse()
            record.begin_unload()
            # Start a task: models that need this one must refuse requests now, not after its pending requests have
            # finished.
            following = self.tasks.begin(self.settle(record.name))
            override, record.override = record.override, None
            await self._retiring.retire(servings, override)
            record.end_unload()
        await following

    async def settle(self, name: str) -> None:
        """After a model was loaded, changed or unloaded, rebuild the models that depend on it, or stop serving them."""
        for each in (name, *self.dependencies.dependents(name)):
            if await self.refresh(each) and each != name:
                await self.settle(each)

    async def refresh(self, name: str) -> bool:
        """Rebuild a model if a model that it needs has changed. Returns whether that was so."""
        if not self.dependencies.is_stale(name):
            return False
        await self._refresh(self.models[name])
        return True

    async def withdraw(self, name: str, problem: str) -> None:
        """Unload a model that is served, because several repositories now have a model of that name."""
        record = self.record(name)
        if record.serving() or record.parked:
            await self.unload(record)
        record.fail(problem)

    async def drain(self) -> None:
        """Wait until no version has requests, including replaced and unloaded ones."""
        serving = {loaded.servable for versions in self.ready.values() for loaded in versions.values()}
        await asyncio.gather(*(servable.drain() for servable in serving | self._retiring.servables))

    async def close(self) -> None:
        """Cancel loads, refuse queued requests, finish running ones, and free everything."""
        self._is_closing = True
        self.residency.close()
        self.stamps.close()
        for record in self.models.values():
            record.give_up(stopping_error(record.name))
        self._retiring.refuse()
        await self.tasks.end()
        self.ready.clear()
        for record in self.models.values():
            for each in record.serving().values():
                each.loaded.servable.refuse()
            for parked in record.parked.values():
                parked.refuse()
        for record in self.models.values():
            servings = list(record.serving().values())
            record.begin_unload()
            override, record.override = record.override, None
            closing = (each.loaded.servable.close() for each in servings)
            for result in await asyncio.gather(*closing, return_exceptions=True):
                if isinstance(result, Exception):
                    _log.error("model '%s' could not be closed", record.name, exc_info=result)
            await remove(override)
            record.end_unload()

    async def _load(
        self,
        record: ModelRecord,
        folder: Path,
        config_json: str | None,
        override: Override | None,
        *,
        makes_room: bool,
    ) -> None:
        try:
            work = self._prepare(record, folder, config_json, has_override=override is not None, makes_room=makes_room)
            built = await record.may_give_up(asyncio.create_task(work))
            self._swap(record, built, override)
        except Exception as error:  # noqa: BLE001 - it is raised, as what a client may see
            failure = failure_of(record, error)
            forget_frames(error)
            if not await self.residency.waits(record, failure, makes_room=makes_room) and (
                record.is_loading() or not self._is_closing
            ):
                record.fail(failure.problem, failure.reasons)
            await remove(override)
            try:
                raise failure.error from (None if failure.error is error else error)
            finally:
                # The error's traceback refers to this frame; deleting the name breaks that reference cycle.
                del failure
        except BaseException:
            await remove(override)
            raise

    async def _prepare(
        self, record: ModelRecord, folder: Path, config_json: str | None, *, has_override: bool, makes_room: bool
    ) -> Sequence[Priced | Serving]:
        """Wait for a slot to load in, and build all versions. If this is cancelled, the builds are freed."""
        async with self._slots.slot():
            limit = LoadLimit(self._clock, self._settings.limits.load_seconds, functools.partial(give_up_late, record))
            try:
                stamp = record.stamp = await self.stamps.stamp_of(folder, record.stamp)
                if config_json is None and record.remembered is not None and record.remembered.holds(stamp):
                    config_json = record.remembered.config_json
                source, needs = await self._read(record, folder, stamp, config_json, limit)
                makes_room = makes_room or self.memory.room.is_pinned(source)
                built = None if needs else await self._builder.build(record, source, makes_room=makes_room)
            finally:
                limit.cancel()
        if built is None:
            # Wait for the needed models without a slot: they may need all of the slots. An ensemble compiles nothing.
            source = await self._complete(record, source, needs, is_bringing=True)
            built = await self._builder.build(record, source, makes_room=makes_room)
        else:
            self.dependencies.forget(record.name)
        record.remembered = None
        if config_json is not None and not has_override:
            record.remembered = Remembered(config_json, stamp)
        return built

    async def _read(
        self, record: ModelRecord, folder: Path, before: Stamp, config_json: str | None, limit: LoadLimit
    ) -> tuple[Source, Needs]:
        """Read the source to load, and the models that it needs. Raises `LoadFailedError`."""
        if self._is_closing:
            raise stopping_error(record.name)

        try:
            # Check the names of adapters when they are known: `_swap` does that.
            require_free(record.name, (), self.ready)
            source = await in_thread(
                read_source,
                record.name,
                folder,
                before,
                config_json,
                self._settings.completion,
                self._backends.supports,
            )
            needs = await in_thread(self._backends.needs, source)
            # Raise an error already here if the parameter `pinned` is not a boolean.
            self.memory.room.is_pinned(source)
            limit.change(limits_of(parameters_of(source.message), self._settings.limits).load_seconds)
        except TriuneError as error:
            raise LoadFailedError(reworded(error, f"failed to load '{record.name}': {error}"), str(error)) from error
        record.source = source
        record.begin_load(source.versions)
        return source, needs

    async def _complete(self, record: ModelRecord, source: Source, needs: Needs, *, is_bringing: bool) -> Source:
        """Add the configs of the needed models to a source. Raises `LoadFailedError`. See `Dependencies.require`."""
        try:
            parts = await self.dependencies.require(record.name, needs, is_bringing=is_bringing)
        except TriuneError as error:
            failure = reworded(error, f"load failed for model '{record.name}': {error}")
            raise LoadFailedError(failure, str(error), dict.fromkeys(source.versions, str(error))) from error
        return replace(source, parts=parts)

    async def _refresh(self, record: ModelRecord) -> None:
        """Rebuild a model from its last source, with the present configs of the models that it needs.

        If that fails, the model does not serve any more, and its record has the reason.
        """
        async with record.lock:
            source = record.source
            if source is None or self._is_closing or not self.dependencies.is_stale(record.name):
                return
            needs = self.dependencies.needs_of(record.name)
            try:
                source = await self._complete(record, source, needs, is_bringing=False)
                built = await self._builder.build(record, source, makes_room=False)
                self._swap(record, built, record.override)
            except Exception as error:  # noqa: BLE001 - the index and the log show the error
                failure = failure_of(record, error)
                servings = list(record.serving().values())
                self.ready.pop(record.name, None)
                prefix = f"{UNLOADED}: " if self.dependencies.is_without_unloaded(record.name) else ""
                reasons = {version: f"{prefix}{reason}" for version, reason in (failure.reasons or {}).items()}
                record.lose(f"{prefix}{failure.problem}", reasons)
                await self._retiring.retire(servings, None)

    def _swap(self, record: ModelRecord, built: Sequence[Priced | Serving], override: Override | None) -> None:
        """Replace the served versions. Nothing is awaited here, so no request sees an intermediate state."""
        builds = [each.build for each in built]
        try:
            require_free(record.name, max(builds, key=lambda each: each.version).adapter_names, self.ready)
        except InvalidArgumentError as error:
            self.tasks.begin(free(built))
            failure = InvalidArgumentError(f"failed to load '{record.name}': {error}")
            raise LoadFailedError(failure, str(error), {each.version: str(error) for each in builds}) from error
        servings = self._assemble(built)
        newest = servings[max(servings)].build.config
        log_hints(newest.message, self._machine, has_cache=self._settings.cache_bytes is not None)
        kept = [id(each) for each in servings.values()]
        old_servings = [each for each in record.serving().values() if id(each) not in kept]
        old_override = record.override
        ready: dict[int | None, LoadedVersion] = {version: each.loaded for version, each in servings.items()}
        ready[None] = servings[max(servings)].loaded
        self.ready[record.name] = ready
        record.succeed(servings)
        record.usage.loaded_ns, record.usage.loaded_ms = self._clock.now_ns(), time.time_ns() // 1_000_000
        record.override = override
        # Register the old versions now, so that `drain` waits for them from here on.
        self._retiring.add(old_servings)
        if old_override is override:
            old_override = None
        if old_servings or old_override:
            self.tasks.begin(self._retiring.retire(old_servings, old_override))

    def _assemble(self, built: Sequence[Priced | Serving]) -> dict[int, Serving]:
        """Make the servables by version. If a thread cannot be started, free them all and raise NoThreadError."""
        servings: dict[int, Serving] = {}
        new: list[Serving] = []
        for place, each in enumerate(built):
            if isinstance(each, Serving):
                servings[each.build.version] = each
                continue
            try:
                new.append(Serving(each.build, self._backends.assemble(each.build, self._served), each.charge))
            except NoThreadError:
                self.tasks.begin(self._retiring.retire(new, None))
                self.tasks.begin(free(built[place:]))
                raise
            servings[each.build.version] = new[-1]
        for each in built:
            if isinstance(each, Priced) and each.before is not None:
                # The new version shares executables with the version that it replaces, so it takes that version's
                # charge over.
                each.charge.resize(each.charge.num_bytes + each.before.num_bytes)
                each.before.resize(0)
        return servings
