"""Makes room for models within the memory budget by unloading idle models."""

import asyncio
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol

from triune.config.configure import Source
from triune.config.parameters import is_pinned
from triune.core.clock import Clock
from triune.core.errors import NoRoomError, UnsupportedError
from triune.repository.memory.choice import Candidate, choose, choose_busy
from triune.repository.memory.ledger import Charge, MemoryLedger
from triune.repository.memory.parked import wake_up
from triune.repository.record import ModelRecord
from triune.repository.tasks import Tasks
from triune.scheduling.models import LoadedVersion

_log = logging.getLogger(__name__)

_NS: Final = 1_000_000_000
_PATIENCE_NS: Final = 1 * _NS
"""How long, in ns, a load that needs room waits for a model to become idle. Then a busy model is unloaded: it finishes
its requests, and new requests to it wait.
"""

_SHORTEST_PAUSE_NS: Final = 5_000_000
_LONGEST_PAUSE_NS: Final = 80_000_000
"""The longest pause, in ns, before a load that waits for room looks for it again."""

_AT_ONCE: Final = 20
"""How many models are looked at in one iteration of the event loop."""

_MOST_NAMED: Final = 8
"""How many models the error of a refused load names, the largest first."""

_LONGEST_STAY_NS: Final = 10 * _NS
"""A model that was just loaded stays loaded for at least as long as its load took, but for at most this time, in ns."""

_SHRINK_NS: Final = 10 * _NS
"""After a model took more memory than was expected, models that become idle within this time, in ns, may be
unloaded.
"""

_TOUCH_NS: Final = 2 * _NS
"""How long, in ns, a model counts as busy after a front end looked it up: the front end may still be turning the
request into tokens.
"""


class Residents(Protocol):
    """Protocol: the models whose memory counts, and how to unload and load them."""

    @property
    def models(self) -> Mapping[str, ModelRecord]:
        """The records of all models."""
        ...

    def is_in_ensemble(self, name: str) -> bool:
        """Whether a model is an ensemble, or a step of one."""
        ...

    async def park(self, record: ModelRecord, why: str) -> None:
        """Unload a model to make room. The next request loads it again."""
        ...

    async def load_again(self, record: ModelRecord, *, makes_room: bool = True) -> None:
        """Load a model that was unloaded to make room. Others may be unloaded for it. Raises TriuneError if the load
        fails.
        """
        ...

    def get(self, name: str, version: int | None = None) -> LoadedVersion:
        """A version that answers requests: see `Models.get`."""
        ...


class Room:
    """Makes room for loads within the memory budget: see the module. Use it on the event loop's thread only.

    Attributes:
        ledger: the memory that each model is charged with.
    """

    def __init__(
        self, ledger: MemoryLedger, residents: Residents, clock: Clock, tasks: Tasks, *, is_pinned_by_default: bool
    ) -> None:
        """Args:
        ledger: the budget.
        residents: the models whose memory counts.
        clock: the clock.
        tasks: runs operations that go on if their caller is cancelled.
        is_pinned_by_default: whether a model stays loaded if its config does not say whether it does.
        """
        self.ledger = ledger
        self._residents = residents
        self._clock = clock
        self._tasks = tasks
        self._is_pinned_by_default = is_pinned_by_default
        self._making = asyncio.Lock()
        self._is_shrinking = self._is_closed = False

    def is_pinned(self, source: Source) -> bool:
        """Whether the model stays loaded when others need room. Raises InvalidArgumentError for a wrong parameter."""
        return is_pinned(source.message, by_default=self._is_pinned_by_default)

    async def charge(self, record: ModelRecord, version: int, num_bytes: int, *, makes_room: bool) -> Charge:
        """Charge a version that is to be loaded.

        Args:
            record: the model.
            version: the version.
            num_bytes: the expected memory of the version, in bytes.
            makes_room: whether to unload other models if there is no room, and to wait until they are unloaded.

        Raises:
            UnsupportedError: the version needs more than the whole budget.
            NoRoomError: there is no room, and none can be made.
        """
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

    def shrink(self, record: ModelRecord) -> None:
        """Begin to unload models as they become idle, if more memory is charged than the budget has.

        Args:
            record: the model that took more memory than was free.
        """
        if self.ledger.free_bytes < 0 and not self._is_shrinking:
            self._is_shrinking = True
            self._tasks.begin(self._shrink(record))

    def close(self) -> None:
        """Make no more room: the server is stopping."""
        self._is_closed = True

    async def candidates(self, name: str) -> Sequence[Candidate]:
        """The models that may be unloaded to make room for `name`. The event loop runs other tasks in between."""
        return (await self._survey(name))[0]

    async def park_all(self, names: Sequence[str], why: str) -> None:
        """Unload models to make room, after their requests have finished. This continues even if the caller is
        cancelled.
        """
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
        """Whether a model may be unloaded, now or after its running load or unload has ended."""
        source = record.source
        if source is None or record.override is not None or self._residents.is_in_ensemble(record.name):
            return source is None
        return not self.is_pinned(source)

    async def _survey(self, name: str) -> tuple[Sequence[Candidate], int]:
        """The models that may be unloaded for `name` now, and the bytes that may become free now or later."""
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
                # A model stays loaded for at least as long as its load took. Otherwise the server could spend all its
                # time on loads.
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
            busy = choose_busy(candidates, lacking) if lacking > 0 and not names else ()
            why = f"model '{record.name}' needed {num_bytes} bytes"
            if names:
                await self.park_all(names, why)
            elif busy and self._clock.now_ns() >= patient_until_ns:
                for name in busy:
                    if num_bytes > self.ledger.free_bytes + self.ledger.leaving_bytes:
                        await self.park_all([name], why)
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
        until_ns = self._clock.now_ns() + _SHRINK_NS
        while self.ledger.free_bytes < 0 and self._clock.now_ns() < until_ns and not self._is_closed:
            if not self._making.locked():
                async with self._making:
                    # More memory is in use than the budget allows, so models that were loaded just now may be unloaded
                    # too.
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
        """The text for an error that lists what takes the memory, and why each model stays loaded."""
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
    """When a model was used last, as a key for sorting: the time of its last answer, then the time of its load."""
    answered_ms = max(each.loaded.statistics.last_inference_ms for each in record.serving().values())
    return max(answered_ms, record.usage.loaded_ms), record.usage.loaded_ns
