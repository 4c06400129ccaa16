"""Unloads models to make room. A model for which there is no room stays unloaded until a request needs it."""

import logging
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, Protocol

from triune.backends.registry import Backends
from triune.core.clock import Clock
from triune.core.errors import NoRoomError, TriuneError, UnavailableError
from triune.repository.dependencies import Dependencies
from triune.repository.failure import LoadFailedError
from triune.repository.memory.ahead import Ahead
from triune.repository.memory.keeper import MemoryKeeper
from triune.repository.memory.ledger import MemoryLedger
from triune.repository.memory.meter import LoadMeter
from triune.repository.memory.parked import ParkedServable
from triune.repository.memory.parking import Parking
from triune.repository.record import ModelRecord, kept
from triune.repository.retiring import Retiring
from triune.repository.settings import ControlMode, RepositorySettings
from triune.repository.tasks import Tasks
from triune.scheduling.models import LoadedVersion, Models

_log = logging.getLogger(__name__)


class Loading(Protocol):
    """Protocol of the loader of models: see `Lifecycle`."""

    models: dict[str, ModelRecord]
    ready: dict[str, dict[int | None, LoadedVersion]]
    dependencies: Dependencies
    tasks: Tasks

    def load(self, name: str, folder: Path, *, makes_room: bool = False) -> Coroutine[Any, Any, None]:
        """Load a model: see `Lifecycle.load`."""
        ...

    def settle(self, name: str) -> Coroutine[Any, Any, None]:
        """Rebuild the models that need the model `name`."""
        ...


class Residency:
    """Unloads models to make room, and reloads them: see the module. Use it on the event loop's thread only.

    Attributes:
        memory: keeps the models within the memory budget.
        ahead: loads models before requests need them.
    """

    def __init__(
        self,
        loading: Loading,
        served: Models,
        backends: Backends,
        settings: RepositorySettings,
        clock: Clock,
        retiring: Retiring,
        meter: LoadMeter | None,
    ) -> None:
        """Args:
        loading: loads models.
        served: all models that are served.
        backends: complete configs.
        settings: the memory budget, and the control mode.
        clock: the clock.
        retiring: lets versions finish their requests, and frees them.
        meter: measures how much memory loads take; None measures this process.
        """
        self._loading = loading
        self._served = served
        self._retiring = retiring
        self._is_closed = False
        self.memory = MemoryKeeper(
            MemoryLedger(settings.memory_budget_bytes(), settings.fixed_bytes()),
            self,
            clock,
            loading.tasks,
            is_pinned_by_default=settings.control_mode is ControlMode.EXPLICIT,
            meter=meter,
        )
        self.ahead = Ahead(self.memory, self, clock, loading.tasks)
        self._parking = Parking(self.memory, backends, clock, settings.models.limits.queue.max_requests)

    @property
    def models(self) -> Mapping[str, ModelRecord]:
        """The records of all models."""
        return self._loading.models

    def get(self, name: str, version: int | None = None) -> LoadedVersion:
        """A version that takes requests: see `Models.get`."""
        return self._served.get(name, version)

    def is_in_ensemble(self, name: str) -> bool:
        """Whether a model is an ensemble, or a step of one."""
        dependencies = self._loading.dependencies
        return bool(dependencies.needs_of(name) or dependencies.dependents(name))

    async def load_again(self, record: ModelRecord, *, makes_room: bool = True) -> None:
        """Load a model that was unloaded to make room, with its current files. Raises TriuneError if that fails."""
        if record.serving() or record.source is None:
            return
        try:
            await self._loading.load(record.name, record.source.folder, makes_room=makes_room)
        finally:
            self._loading.tasks.begin(self._loading.settle(record.name))

    async def park(self, record: ModelRecord, why: str) -> None:
        """Unload a model to make room. New requests wait until it is loaded again, and running requests finish."""
        if record.lock.locked() or not record.serving():
            return
        async with record.lock:
            record.usage.num_unloaded += 1
            servings = record.serving()
            record.begin_park(self._take_requests(record.name, self._parking.of_loaded(servings)))
            await self._retiring.retire(list(servings.values()), None)
            record.end_park(why)

    async def waits(self, record: ModelRecord, failure: LoadFailedError, *, makes_room: bool) -> bool:
        """Whether the next request retries a load that failed. It does if there was no room, and if the model was
        parked: then it was loaded once, and would still serve if it had not been unloaded.

        Args:
            record: the model.
            failure: why its load failed.
            makes_room: whether the load could unload other models.
        """
        source, error = record.source, failure.error
        if record.parked and source is not None:
            problem, is_temporary = kept(failure.problem), isinstance(error, UnavailableError)
            for parked in record.parked.values():
                parked.recover() if is_temporary else parked.fail(problem)
            if not is_temporary:
                _log.error("model '%s' could not be loaded again: %s", record.name, problem)
            record.end_park(problem if is_temporary else f"its last load failed: {problem}")
            return True
        if record.parked:
            # Drop the parked servables: the requests that wait for this load get its error.
            record.parked = {}
            self._loading.ready.pop(record.name, None)
        is_waiting = isinstance(error, NoRoomError) and not makes_room and not record.serving() and not self._is_closed
        if not is_waiting or source is None or self.memory.room.is_pinned(source):
            return False
        try:
            versions = await self._parking.of_source(source)
        except TriuneError:
            # Do not retry: the config or the files are invalid, so the load would fail even if there were room.
            return False
        record.begin_park(self._take_requests(record.name, versions))
        record.end_park(failure.problem)
        return True

    def close(self) -> None:
        """Stop unloading models to make room, and stop loading models ahead of requests."""
        self._is_closed = True
        self.memory.room.close()
        self.ahead.close()

    def _take_requests(self, name: str, versions: Mapping[int, LoadedVersion]) -> Mapping[int, ParkedServable]:
        """Route the requests for a model that is not in memory to these parked versions. Returns their servables by
        version.
        """
        self._loading.ready[name] = {**versions, None: versions[max(versions)]}
        self.ahead.start()
        return {
            version: each.servable for version, each in versions.items() if isinstance(each.servable, ParkedServable)
        }
