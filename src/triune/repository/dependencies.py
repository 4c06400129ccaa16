"""Models that are made of others: what must be ready before them, and whether that has changed since.

Source of the rules and of the words: Triton's `model_repository_manager.cc`.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

from triune.config.model_config import ModelConfig
from triune.core.errors import InvalidArgumentError, TriuneError
from triune.repository.record import ModelRecord
from triune.scheduling.models import LoadedVersion, Models

Needs: TypeAlias = Mapping[str, frozenset[int | None]]
"""Names of models, each with the versions that are needed; None is the newest."""

Part: TypeAlias = tuple[str, int | None]


class Dependencies:
    """Which models are made of which. On the event loop's thread only."""

    def __init__(
        self, models: Models, records: Mapping[str, ModelRecord], bring: Callable[[str], Awaitable[None]]
    ) -> None:
        """Args:
        models: those that are ready.
        records: those that were ever asked for.
        bring: loads a model that another needs, where the control mode has it; never raises a TriuneError.
        """
        self._models = models
        self._records = records
        self._bring = bring
        self._needs: dict[str, Needs] = {}
        self._seen: dict[str, Mapping[Part, LoadedVersion | None]] = {}
        self._num_announced: Counter[str] = Counter()
        self._turned: dict[str, asyncio.Event] = {}

    def announce(self, name: str) -> None:
        """A model is about to be loaded, or looked at: those that need it wait for as many calls of `done`."""
        self._num_announced[name] += 1

    def done(self, name: str) -> None:
        """See `announce`."""
        self._num_announced[name] -= 1
        if not self._num_announced[name]:
            del self._num_announced[name]
            if (event := self._turned.pop(name, None)) is not None:
                event.set()

    def needs_of(self, name: str) -> Needs:
        """What a model is made of; empty for one that stands alone."""
        return self._needs.get(name, {})

    def dependents(self, name: str) -> Sequence[str]:
        """The models that are made of this one, themselves and not by way of others."""
        return [each for each, needs in self._needs.items() if name in needs]

    def forget(self, name: str) -> None:
        """A model is not wanted any more: it does not come back when what it is made of does."""
        self._needs.pop(name, None)
        self._seen.pop(name, None)

    def is_stale(self, name: str) -> bool:
        """A model is to be built anew, since what it is made of is not what it was. One that loads sees that itself."""
        record = self._records.get(name)
        if name not in self._needs or record is None or record.num_loads:
            return False
        now, seen = self._look_up(self._needs[name]), self._seen.get(name, {})
        return now.keys() != seen.keys() or any(now[part] is not seen[part] for part in now)

    async def require(self, name: str, needs: Needs, *, is_bringing: bool) -> Mapping[Part, ModelConfig]:
        """The configs of what a model is made of, all of it ready.

        Args:
            name: the model.
            needs: what it needs.
            is_bringing: load what is missing, and wait for it.

        Raises:
            InvalidArgumentError: something is missing, or needs the model itself. The message says what and why.
        """
        self._needs[name], self._seen[name] = needs, self._look_up(needs)
        self._check_circle(name)
        if is_bringing:
            await asyncio.gather(*(self._ensure(each) for each in needs))
            # Those that have loaded meanwhile may be made of others, too.
            self._check_circle(name)
        loaded = self._look_up(needs)
        self._seen[name] = loaded
        self._check_missing(name, loaded)
        return {part: each.config for part, each in loaded.items() if each is not None}

    def is_without_unloaded(self, name: str) -> bool:
        """A model is not ready because others were unloaded on request, and for no other reason."""
        missing = [part[0] for part, each in self._look_up(self.needs_of(name)).items() if each is None]
        return bool(missing) and all(each in self._records and self._records[each].is_unloaded() for each in missing)

    async def _ensure(self, name: str) -> None:
        while self._num_announced[name]:
            await self._turned.setdefault(name, asyncio.Event()).wait()
        await self._bring(name)

    def _look_up(self, needs: Needs) -> Mapping[Part, LoadedVersion | None]:
        found: dict[Part, LoadedVersion | None] = {}
        for name, versions in needs.items():
            for version in versions:
                try:
                    found[name, version] = self._models.get(name, version)
                except TriuneError:
                    found[name, version] = None
        return found

    def _check_missing(self, name: str, loaded: Mapping[Part, LoadedVersion | None]) -> None:
        missing = [part for part, each in loaded.items() if each is None]
        unknown = sorted({part[0] for part in missing if part[0] not in self._records})
        if unknown:
            raise InvalidArgumentError(
                f"ensemble {name} contains models that are not available or ambiguous: {', '.join(unknown)}"
            )
        for model, version in missing:
            serving = self._records[model].serving()
            if not serving:
                why = self._records[model].problem
                reason = f" Model '{model}' loading failed with error: {why}" if why else ""
                raise InvalidArgumentError(
                    f"ensemble '{name}' depends on '{model}' which has no loaded version.{reason}"
                )
            raise InvalidArgumentError(
                f"ensemble '{name}' depends on '{model}' whose required version {version} is not loaded; its versions "
                f"are {', '.join(map(str, serving))}, and model_version: -1 takes the newest"
            )

    def _check_circle(self, name: str) -> None:
        """Raise InvalidArgumentError if a model is made of itself, directly or not."""
        seen: set[str] = set()
        reached = [name]
        while reached:
            each = reached.pop()
            for need in self.needs_of(each):
                if need == name:
                    raise InvalidArgumentError(
                        f"circular dependency between ensembles: {name} -> ... -> {each} -> {name}"
                    )
                if need not in seen:
                    seen.add(need)
                    reached.append(need)
