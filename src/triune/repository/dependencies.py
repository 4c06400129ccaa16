"""Dependencies between models: an ensemble needs the models of its steps to be ready, and is rebuilt if they change.

Source of the rules and of the messages: Triton's `model_repository_manager.cc`.
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
"""Names of needed models, each with the needed versions; None is the newest."""

Part: TypeAlias = tuple[str, int | None]


class Dependencies:
    """Keeps track of which models need which other models. Use it on the event loop's thread only."""

    def __init__(
        self, models: Models, records: Mapping[str, ModelRecord], bring: Callable[[str], Awaitable[None]]
    ) -> None:
        """Args:
        models: the ready models.
        records: the records of all models that were ever requested to load.
        bring: loads the model with this name, which another model needs, if the control mode allows that; never raises
            a TriuneError.
        """
        self._models = models
        self._records = records
        self._bring = bring
        self._needs: dict[str, Needs] = {}
        self._seen: dict[str, Mapping[Part, LoadedVersion | None]] = {}
        self._num_announced: Counter[str] = Counter()
        self._turned: dict[str, asyncio.Event] = {}

    def announce(self, name: str) -> None:
        """Announce that a model may change. The models that need it wait until `done` was called for each
        `announce`.
        """
        self._num_announced[name] += 1

    def done(self, name: str) -> None:
        """End the wait that `announce` began."""
        self._num_announced[name] -= 1
        if not self._num_announced[name]:
            del self._num_announced[name]
            if (event := self._turned.pop(name, None)) is not None:
                event.set()

    def needs_of(self, name: str) -> Needs:
        """The models that a model needs; empty for a tensor model."""
        return self._needs.get(name, {})

    def dependents(self, name: str) -> Sequence[str]:
        """The models that directly need this one."""
        return [each for each, needs in self._needs.items() if name in needs]

    def forget(self, name: str) -> None:
        """Forget an unloaded model, so that it is not rebuilt when the models that it needs are loaded again."""
        self._needs.pop(name, None)
        self._seen.pop(name, None)

    def is_stale(self, name: str) -> bool:
        """Whether a model must be rebuilt, because a model that it needs has changed. False while it is loading."""
        record = self._records.get(name)
        if name not in self._needs or record is None or record.num_loads:
            return False
        now, seen = self._look_up(self._needs[name]), self._seen.get(name, {})
        return now.keys() != seen.keys() or any(now[part] is not seen[part] for part in now)

    async def require(self, name: str, needs: Needs, *, is_bringing: bool) -> Mapping[Part, ModelConfig]:
        """Wait until the models that a model needs are ready, and return their configs.

        Args:
            name: the model.
            needs: the needed models and versions.
            is_bringing: whether to load missing models, and wait for them.

        Raises:
            InvalidArgumentError: a needed model is missing or needs this model. The message names it and the reason.
        """
        self._needs[name], self._seen[name] = needs, self._look_up(needs)
        self._check_circle(name)
        if is_bringing:
            await asyncio.gather(*(self._ensure(each) for each in needs))
            # Check for circles again: the models that were just loaded may need other models.
            self._check_circle(name)
        loaded = self._look_up(needs)
        self._seen[name] = loaded
        self._check_missing(name, loaded)
        return {part: each.config for part, each in loaded.items() if each is not None}

    def is_without_unloaded(self, name: str) -> bool:
        """Whether a model is not ready only because models that it needs were unloaded on request."""
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
        """Raise InvalidArgumentError if a model needs itself, directly or indirectly."""
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
