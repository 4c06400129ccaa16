"""The backend of checkpoints that encode texts: a directory of Hugging Face's form."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from triune.backends.attempt import Attempt
from triune.backends.libraries import require_libraries
from triune.backends.tensor.backend import TryFirst
from triune.config.configure import Source
from triune.config.encoder import checkpoint_folder, configure_encoder
from triune.config.model_config import ModelConfig
from triune.config.settings import DEFAULT_SETTINGS, ModelSettings
from triune.core.clock import Clock
from triune.core.servable import Servable
from triune.runtimes.machine import Machine
from triune.scheduling.models import Models

if TYPE_CHECKING:
    from triune.backends.encoder.build import EncoderBuild


class EncoderBackend:
    """The `Backend` of encoders. The libraries of the extra `engine` are imported when a model needs them."""

    honours: frozenset[str] = frozenset()

    def __init__(
        self,
        machine: Machine,
        clock: Clock,
        settings: ModelSettings = DEFAULT_SETTINGS,
        *,
        try_first: TryFirst | None = None,
    ) -> None:
        """Args:
        machine: the runtimes and units to build for.
        clock: the clock of all measurements.
        settings: defaults for all models.
        try_first: is called before a version is compiled; see `TryFirst`. None: it is compiled directly.
        """
        self._machine = machine
        self._clock = clock
        self._settings = settings
        self._try_first = try_first

    def needs(self, source: Source) -> Mapping[str, frozenset[int | None]]:
        """Nothing: see `Backend.needs`."""
        del source
        return {}

    def configure(self, source: Source, version: int) -> ModelConfig:
        """Complete the configuration of a version, by its checkpoint's config: see `Backend.configure`."""
        require_libraries()
        from triune.backends.encoder.checkpoint import open_encoder_checkpoint, output_of

        folder = source.folder / str(version)
        config, _ = open_encoder_checkpoint(checkpoint_folder(source.message, folder))
        return configure_encoder(source.message, source.name, folder, self._machine, output_of(config))

    def build(self, source: Source, version: int, previous: "EncoderBuild | None", attempt: Attempt) -> "EncoderBuild":
        """Write the graph, compile it, and run it once: see `Backend.build`. Nothing is shared with `previous`."""
        del previous
        config = self.configure(source, version)
        from triune.backends.encoder.build import build_encoder

        attempt.check()
        if self._try_first is not None:
            self._try_first(source, version, attempt)
        return build_encoder(config, source, version, self._machine, self._clock, attempt)

    def assemble(self, build: "EncoderBuild", models: Models) -> Servable:
        """Make workers, dispatcher and what parts requests: see `Backend.assemble`."""
        del models
        from triune.backends.encoder.build import assemble_encoder

        return assemble_encoder(build, self._settings, self._clock)
