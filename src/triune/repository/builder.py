"""Builds the versions of a model, each in a thread, and tries those again that fail."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from triune.backends.attempt import Attempt
from triune.backends.backend import Build
from triune.backends.registry import Backends
from triune.config.configure import Source
from triune.core.errors import TriuneError
from triune.core.threads import in_thread, in_thread_or, in_thread_or_here
from triune.repository.failure import LoadFailedError
from triune.repository.record import ModelRecord, Serving

_log = logging.getLogger(__name__)


class VersionBuilder:
    """Builds all versions of a model, or none of them."""

    def __init__(
        self, backends: Backends, num_retries: int, begin: Callable[[Coroutine[Any, Any, None]], object]
    ) -> None:
        """Args:
        backends: build versions.
        num_retries: how often a version that fails is tried again.
        begin: starts work that frees what a cancelled build has made.
        """
        self._backends = backends
        self._num_retries = num_retries
        self._begin = begin

    async def build(self, record: ModelRecord, source: Source) -> Sequence[Build | Serving]:
        """Build all versions. Served versions that have not changed are kept. Raises `LoadFailedError`."""
        serving = record.serving()
        built: list[Build | Serving] = []
        errors: dict[int, TriuneError] = {}
        for version in source.versions:
            old = serving.get(version)
            previous = old.build if old is not None else None
            try:
                if old is not None and await in_thread(old.build.is_current, source):
                    built.append(old)
                    continue
                built.append(await self._build_version(source, version, previous))
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
        error = type(first)(f"load failed for model '{record.name}': {problem}")
        raise LoadFailedError(error, problem, reasons) from first

    async def _build_version(self, source: Source, version: int, previous: Build | None) -> Build:
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

    async def _attempt(self, source: Source, version: int, previous: Build | None) -> Build:
        attempt = Attempt()
        try:
            return await in_thread_or(Build.close, self._backends.build, source, version, previous, attempt)
        except asyncio.CancelledError:
            self._begin(in_thread_or_here(attempt.give_up))
            raise


async def free(built: Sequence[Build | Serving]) -> None:
    """Free the builds; versions that serve stay as they are."""
    for each in built:
        if isinstance(each, Build):
            await in_thread_or_here(each.close)
