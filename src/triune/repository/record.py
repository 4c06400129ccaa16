"""The record of a model: its versions, their states and the reasons. Every change is logged."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from triune.backends.backend import Build
from triune.config.configure import Source
from triune.config.stamps import Stamp
from triune.core.errors import NotFoundError, TriuneError, UnavailableError
from triune.core.printable import cut, encodable
from triune.repository.memory.ledger import Charge
from triune.repository.memory.parked import ParkedServable
from triune.repository.memory.usage import Usage
from triune.repository.model import IndexEntry, ModelState
from triune.repository.override import Override
from triune.scheduling.models import LoadedVersion

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

UNLOADED = "unloaded"
"""The reason of a version that was unloaded on request, as in Triton."""

UNLOADED_FOR_ROOM = f"{UNLOADED} for room"
"""The reason of a version that was unloaded to make room for other models begins with this. The next request has it
loaded again.
"""

_MOST_CHARACTERS = 4096
"""The longest reason, in characters, that is kept, logged and shown in the index. Longer reasons are cut: some errors
repeat the content of a config or file.
"""


@dataclass(slots=True)
class Serving:
    """A version that answers requests, the build that it was made from, and its charge to the memory budget."""

    build: Build
    loaded: LoadedVersion
    charge: Charge


@dataclass(frozen=True, slots=True)
class Remembered:
    """The config of a load request, which also applies to later loads without a config (Triton's rule).

    Attributes:
        config_json: the config.
        stamp: the folder's fingerprint. When the folder, or the time of a config in it, changes, the folder's config
            applies again.
    """

    config_json: str
    stamp: Stamp

    def holds(self, now: Stamp) -> bool:
        """Whether this config still applies: the folder and the times of its configs are unchanged."""
        return now == self.stamp and now.config_times() == self.stamp.config_times()


@dataclass(slots=True)
class VersionRecord:
    """A version's state. `serving` is set exactly while it is READY."""

    state: ModelState
    reason: str = ""
    serving: Serving | None = None


class ModelRecord:
    """A model that was loaded, or that someone tried to load.

    Attributes:
        name: the model's name.
        lock: held during changes, so that loads and unloads of one model run one after the other.
        num_loads: the number of running loads, including those that wait for a slot.
        versions: the versions by number. A failed load does not change versions that serve.
        problem: why the last load failed before any version was built; empty otherwise.
        stamp: the fingerprint of the model's folder at the last load.
        override: the folder with the files of a load request, which replaces the model's own folder; None if there is
            none.
        why_given_up: the reason why a load was last cancelled.
        num_unloads: the number of unload requests so far. A load that was requested before the last unload request does
            not start.
        remembered: the config of the last load request that had a config but no files.
        source: the source of the last load.
        usage: the measured memory, load times and uses of the model.
        parked: the servables that take the requests of its versions while these are unloaded to make room, by number.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = asyncio.Lock()
        self.num_loads = 0
        self.versions: dict[int, VersionRecord] = {}
        self.problem = ""
        self.stamp: Stamp | None = None
        self.override: Override | None = None
        self.num_unloads = 0
        self._loading: asyncio.Task[object] | None = None
        self.why_given_up: TriuneError | None = None
        self.remembered: Remembered | None = None
        self.source: Source | None = None
        self.usage = Usage()
        self.parked: dict[int, ParkedServable] = {}

    async def may_give_up(self, work: "asyncio.Task[_T]") -> _T:
        """Wait for a load, which `give_up` can cancel.

        Raises:
            TriuneError: the error of the load, or the reason why it was cancelled.
        """
        self._loading, self.why_given_up = work, None
        try:
            return await work
        except asyncio.CancelledError:
            if self.why_given_up is None:
                raise
            raise self.why_given_up from None
        finally:
            self._loading = None

    def give_up(self, why: TriuneError) -> None:
        """Cancel the running load, if there is one; `why` becomes its error."""
        if self._loading is not None:
            self.why_given_up = why
            self._loading.cancel()

    def serving(self) -> dict[int, Serving]:
        """The versions that answer requests, ascending."""
        return {version: each.serving for version, each in sorted(self.versions.items()) if each.serving is not None}

    def is_as_wanted(self) -> bool:
        """Whether every version is ready, or was unloaded on request.

        While the old version serves, a replacement that is loading or failed to load does not count.
        """
        if not self.versions:
            return not self.problem and not self.num_loads
        is_serving = any(each.serving is not None for each in self.versions.values())
        return all(
            each.state is ModelState.READY
            or (each.state is ModelState.LOADING and is_serving)
            or (each.state is ModelState.UNAVAILABLE and each.reason.startswith(UNLOADED))
            for each in self.versions.values()
        )

    def is_loading(self) -> bool:
        """Whether the state of any version is LOADING."""
        return any(each.state is ModelState.LOADING for each in self.versions.values())

    def is_unloaded(self) -> bool:
        """Whether no version serves, because all were unloaded on request or are being unloaded."""
        return (not self.problem or self.problem.startswith(UNLOADED)) and all(
            each.state is ModelState.UNLOADING or each.reason.startswith(UNLOADED) for each in self.versions.values()
        )

    def begin_load(self, versions: Iterable[int]) -> None:
        """Set LOADING for the versions that do not serve yet."""
        self._keep_serving({version: VersionRecord(ModelState.LOADING) for version in versions})
        self.problem = ""
        _log.info("model '%s' is LOADING: version %s", self.name, ", ".join(map(str, versions)))

    def fail(self, problem: str, reasons: Mapping[int, str] | None = None) -> None:
        """Set UNAVAILABLE for the versions that do not serve. The versions that serve go on.

        Args:
            problem: why the load failed, as one text for the whole model.
            reasons: the reasons of single versions, where known.
        """
        problem = kept(problem)
        failed = {
            version: VersionRecord(ModelState.UNAVAILABLE, kept(reason)) for version, reason in (reasons or {}).items()
        }
        self._keep_serving(failed)
        self.problem = problem
        serving = ", ".join(map(str, self.serving()))
        going_on = f"; version {serving}, loaded before, serves on" if serving else ""
        _log.error("model '%s' is UNAVAILABLE: %s%s", self.name, problem, going_on)

    def succeed(self, servings: Mapping[int, Serving]) -> None:
        """Set READY for these versions, some of which may have been loaded before, and drop all others."""
        known = [id(each) for each in self.serving().values()]
        self.versions = {
            version: VersionRecord(ModelState.READY, serving.build.shortfall, serving)
            for version, serving in servings.items()
        }
        self.problem = ""
        self.parked = {}
        for version, serving in servings.items():
            if id(serving) in known:
                _log.info("model '%s' version %d is READY, unchanged", self.name, version)
            else:
                _log.info("model '%s' version %d is READY %s", self.name, version, serving.build)

    def begin_unload(self) -> None:
        """Set UNLOADING for the versions that serve, UNAVAILABLE for all others."""
        if self.serving():
            _log.info("model '%s' is UNLOADING: requests under way finish", self.name)
        for version, each in self.versions.items():
            is_serving = each.serving is not None
            state = ModelState.UNLOADING if is_serving else ModelState.UNAVAILABLE
            self.versions[version] = VersionRecord(state, "" if is_serving else UNLOADED)
        self.problem = ""
        self.stamp = None
        self.remembered = None
        self.source = None
        self.parked = {}

    def begin_park(self, parked: Mapping[int, ParkedServable]) -> None:
        """Set UNLOADING for versions that are unloaded to make room. The fingerprint of the folder and the source are
        kept.
        """
        if self.serving():
            _log.info("model '%s' is UNLOADING for room: requests under way finish", self.name)
        self.versions = {version: VersionRecord(ModelState.UNLOADING) for version in parked}
        self.parked = dict(parked)

    def end_park(self, why: str) -> None:
        """Set UNAVAILABLE for the versions that were unloaded to make room. The next request loads them again."""
        reason = f"{UNLOADED_FOR_ROOM}: {kept(why)}; a request loads it again"
        _log.info("model '%s' is UNAVAILABLE: %s", self.name, reason)
        self.versions = {version: VersionRecord(ModelState.UNAVAILABLE, reason) for version in self.parked}
        self.problem = ""

    def lose(self, problem: str, reasons: Mapping[int, str]) -> None:
        """Set UNAVAILABLE for all versions, since a model that they need is missing. See `fail`."""
        self.versions = {}
        self.fail(problem, reasons)

    def end_unload(self) -> None:
        """Set UNAVAILABLE for all versions."""
        if any(each.state is ModelState.UNLOADING for each in self.versions.values()):
            _log.info("model '%s' is UNAVAILABLE: %s", self.name, UNLOADED)
        self.versions = {version: VersionRecord(ModelState.UNAVAILABLE, UNLOADED) for version in self.versions}

    def index(self) -> Sequence[IndexEntry]:
        """The model's lines of the repository index."""
        if not self.versions:
            return [IndexEntry(self.name, None, *self._without_versions())]
        return [
            IndexEntry(self.name, version, each.state, each.reason) for version, each in sorted(self.versions.items())
        ]

    def why_not(self, version: int | None) -> TriuneError:
        """The error with which to answer a request that names a version that is not ready, or, with None, no version of
        a model of which none is ready.
        """
        unknown = f"Request for unknown model: '{self.name}'"
        if version is None or not self.versions:
            states = "; ".join(_describe(number, each) for number, each in sorted(self.versions.items()))
            state, reason = self._without_versions()
            return UnavailableError(f"{unknown} has no available versions: {states or reason or state.value}")
        record = self.versions.get(version)
        if record is None:
            known = ", ".join(map(str, sorted(self.versions)))
            return NotFoundError(f"{unknown} version {version} is not found; its versions are {known}")
        return UnavailableError(f"{unknown} version {version} is not at ready state: {_describe(version, record)}")

    def _without_versions(self) -> tuple[ModelState, str]:
        """The state and the reason of a model without known versions: LOADING while a load waits for a slot."""
        if self.num_loads:
            return ModelState.LOADING, ""
        return ModelState.UNAVAILABLE, self.problem or UNLOADED

    def _keep_serving(self, others: Mapping[int, VersionRecord]) -> None:
        serving = {version: self.versions[version] for version in self.serving()}
        self.versions = {**others, **serving}


def kept(reason: str) -> str:
    """Make a reason safe to store. It may contain a file name that is not UTF-8, which JSON and protobuf could not
    encode.
    """
    return cut(encodable(reason), _MOST_CHARACTERS)


def _describe(version: int, record: VersionRecord) -> str:
    reason = f": {record.reason}" if record.reason else ""
    return f"version {version} is {record.state.value}{reason}"
