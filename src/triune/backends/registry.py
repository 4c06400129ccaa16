"""Chooses the backend for a config, and passes calls on to it."""

import contextlib
import logging
from collections.abc import Generator, Mapping
from typing import Any, TypeAlias

from triune.backends.attempt import Attempt
from triune.backends.backend import Backend, Build
from triune.config.configure import Source
from triune.config.ensemble.steps import PLATFORM, is_ensemble
from triune.config.model_config import ModelConfig
from triune.core.clock import Clock
from triune.core.disk import no_temporary, temporary_error
from triune.core.errors import InternalError, InvalidArgumentError, NotFoundError, TriuneError, no_memory
from triune.core.threads import lacks_thread, no_thread
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.scheduling.models import LoadedVersion, Models
from triune.scheduling.response_cache import CachedServable, ResponseCache

_log = logging.getLogger(__name__)

AnyBackend: TypeAlias = Backend[Any]

ENSEMBLE = PLATFORM
"""The name of the backend for configs with Triton's `platform: "ensemble"` or `ensemble_scheduling`."""


class Backends:
    """Passes each call to the backend that the config names."""

    def __init__(
        self,
        tensor: AnyBackend,
        clock: Clock,
        *,
        others: Mapping[str, AnyBackend] | None = None,
        cache: ResponseCache | None = None,
    ) -> None:
        """Args:
        tensor: the default backend, for models that a runtime compiles.
        clock: the clock.
        others: the other backends, by the name in the config's field `backend`, or by ENSEMBLE.
        cache: the response cache, for models whose config enables it; None for no cache.
        """
        self._tensor = tensor
        self._others = others or {}
        self._clock = clock
        self._cache = cache

    def of(self, message: ModelConfigMessage) -> AnyBackend:
        """The backend for a config, whether it is completed or not."""
        return self._others.get(ENSEMBLE if is_ensemble(message) else message.backend, self._tensor)

    def supports(self, message: ModelConfigMessage) -> frozenset[str]:
        """The fields that the config's backend supports: see `Backend.supports`."""
        return self.of(message).supports

    def needs(self, source: Source) -> Mapping[str, frozenset[int | None]]:
        """The models that must be ready before the build: see `Backend.needs`."""
        return self.of(source.message).needs(source)

    def configure(self, source: Source, version: int) -> ModelConfig:
        """Complete the configuration of a version: see `Backend.configure`."""
        return self.of(source.message).configure(source, version)

    def build(self, source: Source, version: int, previous: Build | None, attempt: Attempt) -> Build:
        """Build a version: see `Backend.build`. Any backend may have made `previous`. Every error is a TriuneError."""
        backend = self.of(source.message)
        if previous is not None and self.of(previous.source.message) is not backend:
            previous = None
        with typed_failures(source.name, version):
            return backend.build(source, version, previous, attempt)

    def assemble(self, build: Build, models: Models) -> LoadedVersion:
        """Make the servable, with the response cache if the server has one and the config enables it."""
        config = build.config
        servable = self.of(build.source.message).assemble(build, models)
        if self._cache is not None and config.message.response_cache.enable:
            is_ordered = config.batching.preserve_ordering
            servable = CachedServable(servable, self._cache, self._clock, is_ordered=is_ordered)
        return LoadedVersion(build.version, config, servable, build.precisions, build.emulated, build.placement)


@contextlib.contextmanager
def typed_failures(name: str, version: int) -> Generator[None]:
    """A context that converts every error of a build to a TriuneError. Unexpected errors are logged.

    A NotFoundError about a missing file becomes an InvalidArgumentError: to clients, NotFoundError means that the model
    or the version is unknown.
    """
    try:
        yield
    except NotFoundError as error:
        raise InvalidArgumentError(f"{error}") from error
    except TriuneError as error:
        if lacks_thread(error):
            raise no_thread("its load", error) from error
        raise
    except MemoryError as error:
        raise no_memory("its load", "load it again later, or unload others first") from error
    except Exception as error:
        if lacks_thread(error):
            raise no_thread("its load", error) from error
        if (unwritten := temporary_error(error)) is not None:
            raise no_temporary("its load", unwritten) from error
        _log.exception("model '%s' version %d: unexpected error while loading", name, version)
        raise InternalError(f"unexpected {type(error).__name__} while loading: {error}") from error
