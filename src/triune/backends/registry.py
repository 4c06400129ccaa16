"""Which backend a config is for."""

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
from triune.core.errors import InternalError, TriuneError, no_memory
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.scheduling.models import LoadedVersion, Models
from triune.scheduling.response_cache import CachedServable, ResponseCache

_log = logging.getLogger(__name__)

AnyBackend: TypeAlias = Backend[Any]

ENSEMBLE = PLATFORM
"""The name of the backend for configs with Triton's `platform: "ensemble"` or `ensemble_scheduling`."""


class Backends:
    """All backends behind one face: a config chooses among them, and nobody else has to."""

    def __init__(
        self,
        tensor: AnyBackend,
        clock: Clock,
        *,
        others: Mapping[str, AnyBackend] | None = None,
        cache: ResponseCache | None = None,
    ) -> None:
        """Args:
        tensor: for every config that none of the others is for.
        clock: time.
        others: by what a config names in `backend`, and ENSEMBLE.
        cache: keeps answers of models whose config enables it; None keeps none.
        """
        self._tensor = tensor
        self._others = others or {}
        self._clock = clock
        self._cache = cache

    def of(self, message: ModelConfigMessage) -> AnyBackend:
        """The backend that a config is for, completed or not."""
        return self._others.get(ENSEMBLE if is_ensemble(message) else message.backend, self._tensor)

    def honours(self, message: ModelConfigMessage) -> frozenset[str]:
        """See `Backend.honours`, of the backend that the config is for."""
        return self.of(message).honours

    def needs(self, source: Source) -> Mapping[str, frozenset[int | None]]:
        """See `Backend.needs`."""
        return self.of(source.message).needs(source)

    def configure(self, source: Source, version: int) -> ModelConfig:
        """See `Backend.configure`."""
        return self.of(source.message).configure(source, version)

    def build(
        self, source: Source, version: int, previous: Build | None = None, attempt: Attempt | None = None
    ) -> Build:
        """See `Backend.build`; `previous` may be of any backend. Raises a TriuneError, whatever goes wrong."""
        backend = self.of(source.message)
        if previous is not None and self.of(previous.source.message) is not backend:
            previous = None
        with typed_failures(source.name, version):
            return backend.build(source, version, previous, attempt or Attempt())

    def assemble(self, build: Build, models: Models) -> LoadedVersion:
        """See `Backend.assemble`. Answers are kept where the server has a cache and the config enables it."""
        config = build.config
        servable = self.of(build.source.message).assemble(build, models)
        if self._cache is not None and config.message.response_cache.enable:
            is_ordered = config.batching.preserve_ordering
            servable = CachedServable(servable, self._cache, self._clock, is_ordered=is_ordered)
        return LoadedVersion(build.version, config, servable, build.precisions, build.emulated)


@contextlib.contextmanager
def typed_failures(name: str, version: int) -> Generator[None]:
    """Whatever goes wrong within while a version is built is a TriuneError; what nobody has thought of is logged."""
    try:
        yield
    except TriuneError:
        raise
    except MemoryError as error:
        raise no_memory("its load", "load it again later, or unload others first") from error
    except Exception as error:
        _log.exception("model '%s' version %d: unexpected error while loading", name, version)
        raise InternalError(f"unexpected {type(error).__name__} while loading: {error}") from error
