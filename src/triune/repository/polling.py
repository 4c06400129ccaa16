"""Polls the repository: loads models whose folders appear, and reloads or unloads models whose folders change."""

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any

from triune.core.clock import Clock, Timer
from triune.core.errors import InvalidArgumentError, TriuneError, forget_frames
from triune.repository.finding import Found
from triune.repository.lifecycle import Lifecycle
from triune.repository.listing import Listing
from triune.repository.names import with_bases_first
from triune.repository.record import ModelRecord

_log = logging.getLogger(__name__)


class Polling:
    """Loads models from the folders of the repositories, once or whenever the folders change."""

    def __init__(self, listing: Listing, lifecycle: Lifecycle, clock: Clock) -> None:
        """Args:
        listing: lists the folders.
        lifecycle: loads and unloads the models.
        clock: the clock.
        """
        self._listing = listing
        self._lifecycle = lifecycle
        self._models = lifecycle.models
        self._clock = clock
        self._period_ns = 0
        self._timer: Timer | None = None
        self._task: asyncio.Task[None] | None = None
        self._busy: set[str] = set()
        self._is_closing = False

    @property
    def found(self) -> Mapping[str, Found]:
        """The folders of the last listing, by the names of their models."""
        return self._listing.found

    @property
    def is_listed(self) -> bool:
        """Whether the folders have been listed."""
        return self._listing.is_made

    async def list_folders(self) -> None:
        """List the folders of the repositories, in a thread. The listing begins after the call.

        Raises:
            InvalidArgumentError: a repository's folder cannot be read, and no earlier listing could read it.
        """
        await self._listing.list()
        self._lifecycle.stamps.forget_others({each.folders[0] for each in self.found.values()})

    async def load(self, names: Iterable[str]) -> None:
        """Load models concurrently, those that may have the name of another model's adapter after the others. If a load
        fails, the model's record has the reason. Unexpected errors are logged.
        """
        for some in with_bases_first(names):
            await self._together(self._announced(name, self.try_load(name)) for name in some)

    async def poll(self) -> None:
        """Poll the folders once: load new and changed models, unload removed ones.

        Raises:
            InvalidArgumentError: a repository cannot be read; all models are served as before.
        """
        await self.list_folders()
        gone = [record for name, record in self._models.items() if name not in self.found]
        work = [self._announced(record.name, self._forget(record)) for record in gone]
        await self._together([*work, *(self._announced(name, self._reload_if_changed(name)) for name in self.found)])

    def repeat(self, period_seconds: float) -> None:
        """Poll again and again, with a pause after each poll, until `close`. Models that an earlier poll is still
        loading are skipped.
        """
        self._period_ns = int(period_seconds * 1e9)
        self._schedule()

    async def close(self) -> None:
        """Stop polling."""
        self._is_closing = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def try_load(self, name: str) -> None:
        """Load a model. If that fails, its record and the log have the reason."""
        found = self.found.get(name)
        if found is None or found.problem:
            await self._lifecycle.withdraw(name, found.problem if found else not_found(name))
            return
        try:
            await self._lifecycle.load(name, found.folders[0])
        except TriuneError as error:
            forget_frames(error)

    async def _together(self, work: Iterable[Coroutine[Any, Any, None]]) -> None:
        # An unexpected error is logged, and stops neither the other loads nor the server.
        await asyncio.gather(*map(self._lifecycle.tasks.run, work), return_exceptions=True)

    def _announced(self, name: str, work: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
        """Wrap a load or unload of a model: the models that need it wait until the work has ended, and are
        then rebuilt.
        """
        dependencies = self._lifecycle.dependencies
        dependencies.announce(name)

        async def announced() -> None:
            try:
                await work
            finally:
                dependencies.done(name)
            await self._lifecycle.settle(name)

        return announced()

    async def _forget(self, record: ModelRecord) -> None:
        await self._lifecycle.unload(record)
        if record.name not in self.found:
            self._models.pop(record.name, None)
            self._lifecycle.dependencies.forget(record.name)

    async def _reload_if_changed(self, name: str) -> None:
        record = self._models.get(name)
        # Look the model up again: it may have been removed, and another task may have listed the folders meanwhile.
        found = self.found.get(name)
        if found is None or found.is_remembered:
            return
        if record is None or found.problem:
            if record is None or record.problem != found.problem:
                await self.try_load(name)
            return
        try:
            now = await self._lifecycle.stamps.stamp_for_polling(found.folders[0], record.stamp)
        except InvalidArgumentError as error:
            if record.problem != str(error):
                await self.try_load(name)
            return
        if record.stamp != now:
            await self.try_load(name)
        else:
            # Store the new times of files that were rewritten with the same bytes, so that these files are not read
            # again.
            record.stamp = now

    def _schedule(self) -> None:
        if not self._is_closing:
            self._timer = self._clock.call_at(self._clock.now_ns() + self._period_ns, self._start)

    def _start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._poll_and_go_on())

    async def _poll_and_go_on(self) -> None:
        try:
            await self._poll_idle()
        except TriuneError as error:
            _log.error("polling the repositories failed; everything is served as before: %s", error)
        except Exception:  # noqa: BLE001 - the next poll may succeed
            _log.exception("polling the repositories failed; everything is served as before")
        finally:
            self._schedule()

    async def _poll_idle(self) -> None:
        """Poll once, but without models that an earlier poll is still loading."""
        await self.list_folders()
        gone = [name for name in self._models if name not in self.found]
        for name in [*gone, *self.found]:
            if name in self._busy:
                continue
            self._busy.add(name)
            work = self._forget(self._models[name]) if name in gone else self._reload_if_changed(name)
            self._lifecycle.tasks.begin(self._announced(name, work)).add_done_callback(
                lambda _, name=name: self._busy.discard(name)
            )


def not_found(name: str) -> str:
    """Make Triton's error message for a model that is in no repository."""
    return f"failed to load '{name}', failed to poll from model repository: no repository has a folder of this name"
