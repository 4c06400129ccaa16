"""The served models, loaded and unloaded by the control mode while requests run.

All state belongs to the event loop's thread; only reading folders and building versions run in worker threads.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from triune.backends.gate.kept import KeptVerdicts
from triune.backends.machine_backend import ALONE, Shared
from triune.config.layout import check_name
from triune.config.parse import check_size
from triune.core.clock import Clock
from triune.core.errors import InvalidArgumentError, NotFoundError, TriuneError, UnavailableError
from triune.core.power import Power
from triune.core.threads import in_thread
from triune.core.units import UnitStatus
from triune.hardware.facts import UnitFacts
from triune.repository.backends import make_backends
from triune.repository.check import ModelCheck, check
from triune.repository.finding import TWICE, Found
from triune.repository.lifecycle import Lifecycle
from triune.repository.listing import Listing
from triune.repository.memory.keeper import MemoryKeeper
from triune.repository.memory.meter import LoadMeter
from triune.repository.model import IndexEntry, ModelState
from triune.repository.override import Override
from triune.repository.polling import Polling, not_found
from triune.repository.settings import ControlMode, RepositorySettings
from triune.repository.trials import Trials
from triune.runtimes.described import known_units
from triune.runtimes.machine import Machine
from triune.scheduling.models import LoadedVersion

_log = logging.getLogger(__name__)


class Repository:
    """The models of one or more folders in Triton's layout.

    Attributes:
        power: the power mode, which decides which units models use.
        is_open: the initial models are loaded or have failed, and `close` was not called.
    """

    def __init__(
        self,
        settings: RepositorySettings,
        machine: Machine,
        clock: Clock,
        *,
        trials: Path | None = None,
        shared: Shared = ALONE,
        meter: LoadMeter | None = None,
    ) -> None:
        """Args:
        settings: the folders of models, and which models are served.
        machine: the machine to load them on.
        clock: the clock.
        trials: the folder of records of trial loads: a version that is new on this machine is first loaded in a
            separate process. With None, all versions are loaded directly.
        shared: the objects that all models share. If it has no power mode, the models get a power mode that never
            changes.
        meter: measures how much memory loads take; None measures this process.
        """
        self.power = shared.power if shared.power is not None else Power()
        # A folder that is given twice, perhaps by different paths, is one repository.
        self._folders = tuple({folder.resolve(): folder for folder in reversed(settings.folders)}.values())[::-1]
        self._settings = settings
        self._machine = machine
        verdicts = shared.verdicts
        self._verdicts = KeptVerdicts(verdicts) if verdicts is not None else None
        self._trials = Trials(machine, trials, settings.models, verdicts) if trials is not None else None
        try_first = self._trials.require if self._trials is not None else None
        self._backends = make_backends(machine, clock, settings.models, try_first, replace(shared, power=self.power))
        self._lifecycle = Lifecycle(self._backends, self, machine, clock, settings, self._bring, meter)
        # A request looks up its model in this dictionary alone: it has the versions that take requests, by model.
        self._ready = self._lifecycle.ready
        self._models = self._lifecycle.models
        self._polling = Polling(Listing(self._folders), self._lifecycle, clock)
        # The models that a client or the settings requested by name. Other models are loaded because a model needs
        # them.
        self._asked: set[str] = set(self._settings.startup_models)
        self._is_closing = False
        self.is_open = False

    async def open(self) -> None:
        """Load the initial models of the control mode. The index shows a model that fails; the others load.

        Raises:
            InvalidArgumentError: a repository cannot be read.
        """
        await self.list_folders()
        names = list(self._found) if self._settings.loads_all() else list(dict.fromkeys(self._settings.startup_models))
        self._asked.update(names)
        await self._polling.load(names)
        if self._is_closing:
            return
        self.is_open = True
        if self._settings.control_mode is ControlMode.POLL:
            self._polling.repeat(self._settings.poll_seconds)

    async def drain(self) -> None:
        """Wait until no request waits or runs, including requests of replaced and unloaded versions."""
        await self._lifecycle.drain()

    async def close(self) -> None:
        """Stop serving: waiting requests are refused, running ones finish, loads are cancelled."""
        self._is_closing = True
        self.is_open = False
        await self._polling.close()
        await self._lifecycle.close()
        if self._trials is not None:
            self._trials.close()

    @property
    def memory(self) -> MemoryKeeper:
        """The object that keeps the models within the memory budget."""
        return self._lifecycle.memory

    @property
    def units(self) -> Sequence[UnitStatus]:
        """The units of the machine that the repository was given."""
        return self._machine.units

    @property
    def _found(self) -> Mapping[str, Found]:
        return self._polling.found

    def describe_units(self) -> Sequence[UnitFacts]:
        """Describe this machine's units. This queries the system, which may take two seconds."""
        return known_units(self._machine.runtimes)

    def get(self, name: str, version: int | None = None) -> LoadedVersion:
        """Return a version that answers requests; `version` None means the newest. If the version was unloaded to make
        room, a request first loads it again.

        Raises:
            NotFoundError: the model or version is unknown.
            UnavailableError: the version is known, but not ready; the message gives its state and the reason.
        """
        try:
            return self._ready[name][version]
        except KeyError:
            raise self._why_not(name, version) from None

    def is_ready(self, name: str, version: int | None = None) -> bool:
        """Whether a version (None means any) answers requests. A version that was unloaded to make room counts as
        ready. Raises NotFoundError for an unknown model or version.
        """
        if version in self._ready.get(name, {}):
            return True
        error = self._why_not(name, version)
        if isinstance(error, NotFoundError):
            raise error
        return False

    def is_every_model_ready(self) -> bool:
        """Whether every model is ready, except for those that were unloaded on request."""
        return all(record.is_as_wanted() for record in self._models.values())

    def versions(self, name: str) -> Sequence[int]:
        """The ready versions of a model, ascending; none if there is no such model."""
        return sorted(version for version in self._ready.get(name, {}) if version is not None)

    def loaded(self) -> Sequence[LoadedVersion]:
        """Every version that answers requests, by name and version."""
        return [self._ready[name][version] for name in sorted(self._ready) for version in self.versions(name)]

    def index(self, *, is_ready_only: bool = False) -> Sequence[IndexEntry]:
        """The repository index as of the last listing: a line for each version, or one line for a model without
        known versions.
        """
        entries: list[IndexEntry] = []
        for name in sorted(self._found.keys() | self._models.keys()):
            if name in self._models:
                entries += self._models[name].index()
            elif self._found[name].problem:
                entries.append(IndexEntry(name, None, ModelState.UNAVAILABLE, self._found[name].problem))
            else:
                entries.append(IndexEntry(name, None, None))
        return [entry for entry in entries if entry.state is ModelState.READY or not is_ready_only]

    async def list_folders(self) -> None:
        """List the folders of the repositories, in a thread. The listing begins after the call.

        Raises:
            InvalidArgumentError: a repository's folder cannot be read, and no earlier listing could read it.
        """
        await self._polling.list_folders()

    def check(self) -> Sequence[ModelCheck]:
        """Check whether the models would load: reads configs and signatures, compiles nothing.

        May be called on a repository that is not open. Blocks while files are read.

        Raises:
            InvalidArgumentError: a repository cannot be read.
        """
        return check(self._folders, self._backends, self._machine, self._settings.models, self._verdicts)

    async def load(
        self, name: str, *, config_json: str | None = None, files: Mapping[str, bytes] | None = None
    ) -> None:
        """Load a model, or replace it without downtime. Goes on if the caller is cancelled.

        The models that it needs are loaded first, if they are not ready or have changed on disk.

        Args:
            name: the model's folder.
            config_json: replaces config.pbtxt.
            files: maps paths below the model's folder to content; replaces the whole folder.

        Raises:
            InvalidArgumentError: the model or the override is wrong; the versions that served before go on.
            PayloadTooLargeError: the config is larger than the limit for a config file.
            UnsupportedError: Triune or this machine lacks what the model needs.
            NotFoundError: there is no such model.
            UnavailableError: the control mode does not allow it.
        """
        self._check_explicit()
        check_name(name)
        if config_json is not None:
            check_size(config_json)
        if files and config_json is None:
            raise InvalidArgumentError(
                f"failed to load '{name}', failed to poll from model repository: Load parameter 'config' must be "
                "specified for model file override"
            )
        self._asked.add(name)
        await self._lifecycle.tasks.run(self._load(name, config_json, files))

    async def unload(self, name: str, *, unload_dependents: bool = False) -> None:
        """Refuse new requests for a model, finish the pending ones, and free it. Goes on if the caller is cancelled.

        As in Triton, unloading an unknown model or one that is not loaded does nothing.

        Args:
            name: the model.
            unload_dependents: also unload the models that it needs, unless a client loaded them by name or another
                model needs them (Triton's rule and name).

        Raises:
            UnavailableError: the control mode does not allow it.
        """
        self._check_explicit()
        if name in self._models:
            await self._lifecycle.tasks.run(self._unload(name, with_parts=unload_dependents))

    async def poll(self) -> None:
        """Poll the folders once: load new and changed models, unload removed ones. Mode POLL calls this periodically.

        Raises:
            InvalidArgumentError: a repository cannot be read; all models are served as before.
        """
        await self._polling.poll()

    def _check_explicit(self) -> None:
        if self._is_closing:
            raise UnavailableError("the server is stopping: models are not loaded or unloaded any more")
        if self._settings.control_mode is ControlMode.POLL:
            raise UnavailableError("explicit model load / unload is not allowed if polling is enabled")
        if self._settings.control_mode is ControlMode.NONE:
            raise UnavailableError(
                "explicit model load / unload is not allowed if polling is enabled, nor if model control mode is none; "
                "start the server with --model-control-mode=explicit"
            )

    def _why_not(self, name: str, version: int | None) -> TriuneError:
        if name in self._models:
            return self._models[name].why_not(version)
        if not self._polling.is_listed:
            return UnavailableError(
                f"Request for unknown model: '{name}' has no available versions: the model repository has not been "
                "read yet; try again in a moment"
            )
        if name in self._found:
            remedy = "load it first" if self._settings.control_mode is ControlMode.EXPLICIT else "try again in a moment"
            return UnavailableError(
                f"Request for unknown model: '{name}' has no available versions: not loaded; {remedy}"
            )
        return NotFoundError(f"Request for unknown model: '{name}' is not found")

    async def _bring(self, name: str, seen: frozenset[str] = frozenset()) -> None:
        """In mode EXPLICIT, load the model `name`, since another model needs it.

        If versions of `name` serve already, and its files have not changed, it is not loaded: only the models that
        `name` needs are brought by the same rule, and `name` is rebuilt if they have changed. `seen` has the models
        that led here by their needs; they are not brought again.
        """
        is_tried = not self.is_open and name in self._asked
        found, record = self._found.get(name), self._models.get(name)
        if self._settings.control_mode is not ControlMode.EXPLICIT or is_tried or found is None or found.problem:
            return
        if record is not None and record.serving():
            with contextlib.suppress(InvalidArgumentError):
                now = await self._lifecycle.stamps.stamp_for_polling(found.folders[0], record.stamp)
                if record.override is not None or record.stamp == now:
                    needs = self._lifecycle.dependencies.needs_of(name).keys() - seen
                    await asyncio.gather(*(self._bring(each, seen | {name}) for each in needs))
                    await self._lifecycle.refresh(name)
                    return
        await self._polling.try_load(name)
        # Start a task, so that the caller does not wait until other models that need this one are rebuilt.
        self._lifecycle.tasks.begin(self._lifecycle.settle(name))

    async def _unload(self, name: str, *, with_parts: bool) -> None:
        dependencies = self._lifecycle.dependencies
        parts = list(dependencies.needs_of(name))
        self._asked.discard(name)
        dependencies.forget(name)
        await self._lifecycle.unload(self._models[name])
        self._forget_stranger(name)
        for part in parts if with_parts else ():
            if part in self._models and part not in self._asked and not dependencies.dependents(part):
                await self._unload(part, with_parts=True)

    async def _load(self, name: str, config_json: str | None, files: Mapping[str, bytes] | None) -> None:
        try:
            await self._load_alone(name, config_json, files)
        finally:
            await self._lifecycle.settle(name)

    async def _load_alone(self, name: str, config_json: str | None, files: Mapping[str, bytes] | None) -> None:
        if files:
            override = await in_thread(Override, name, files)
            try:
                await self._lifecycle.load(name, override.folder, config_json, override, makes_room=True)
            except TriuneError:
                self._forget_stranger(name)
                raise
            return
        await self.list_folders()
        found = self._found.get(name)
        if found is None:
            raise NotFoundError(not_found(name))
        if found.problem:
            problem = "not unique across all model repositories" if found.problem == TWICE else found.problem
            raise InvalidArgumentError(f"failed to load '{name}', failed to poll from model repository: {problem}")
        await self._lifecycle.load(name, found.folders[0], config_json, makes_room=True)

    def _forget_stranger(self, name: str) -> None:
        """Drop the record of a model that is in no repository and is not served."""
        record = self._models.get(name)
        if record is not None and name not in self._found and not record.serving() and not record.num_loads:
            del self._models[name]
