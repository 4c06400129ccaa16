"""Makes parked servables, which take the requests of a model that was unloaded to make room or was never loaded, and
have it loaded when a request comes.
"""

from collections.abc import Mapping
from dataclasses import replace

from triune.backends.registry import Backends
from triune.config.configure import Source
from triune.config.model_config import ModelConfig
from triune.core.clock import Clock
from triune.core.threads import in_thread
from triune.repository.memory.parked import ParkedServable, Waking
from triune.repository.names import adapters_of
from triune.repository.record import Serving
from triune.scheduling.models import Holds, LoadedVersion


class Parking:
    """Makes the `ParkedServable` of each version that is not in memory."""

    def __init__(self, waking: Waking, backends: Backends, clock: Clock, max_requests: int) -> None:
        """Args:
        waking: loads models.
        backends: complete the configs of models that were never loaded.
        clock: the clock.
        max_requests: how many requests may wait for a model; 0 means no limit.
        """
        self._waking = waking
        self._backends = backends
        self._clock = clock
        self._max_requests = max_requests

    def of_loaded(self, servings: Mapping[int, Serving]) -> Mapping[int, LoadedVersion]:
        """Make parked versions, by number, that replace loaded ones and go on with their statistics."""
        parked: dict[int, LoadedVersion] = {}
        for version, each in servings.items():
            loaded, servable = each.loaded, each.loaded.servable
            parked[version] = replace(
                loaded,
                servable=ParkedServable(
                    loaded.config,
                    version,
                    self._waking,
                    self._clock,
                    max_requests=self._max_requests,
                    statistics=servable.statistics,
                    adapters=adapters_of(servable),
                ),
                holds=Holds(),
            )
        return parked

    async def of_source(self, source: Source) -> Mapping[int, LoadedVersion]:
        """Make parked versions, by number, of a model that was never loaded. Their configs are completed from the
        files.

        Raises:
            TriuneError: a config is wrong.
        """
        parked: dict[int, LoadedVersion] = {}
        for version in source.versions:
            config: ModelConfig = await in_thread(self._backends.configure, source, version)
            servable = ParkedServable(config, version, self._waking, self._clock, max_requests=self._max_requests)
            parked[version] = LoadedVersion(version, config, servable)
        return parked
