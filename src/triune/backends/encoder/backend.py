"""The backend of checkpoints that encode texts, in Hugging Face's format."""

from typing import TYPE_CHECKING

from triune.backends.attempt import Attempt
from triune.backends.libraries import require_libraries
from triune.backends.machine_backend import MachineBackend
from triune.config.configure import Source
from triune.config.encoder import checkpoint_folder, configure_encoder
from triune.config.links import require_checkpoint_near
from triune.config.model_config import ModelConfig
from triune.core.servable import Servable
from triune.scheduling.models import Models

if TYPE_CHECKING:
    from triune.backends.encoder.build import EncoderBuild


class EncoderBackend(MachineBackend):
    """The `Backend` of encoders. The libraries of the extra `engine` are imported when a model needs them."""

    supports: frozenset[str] = frozenset()

    def configure(self, source: Source, version: int) -> ModelConfig:
        """Complete the configuration of a version, by its checkpoint's config: see `Backend.configure`."""
        require_libraries()
        from triune.backends.encoder.checkpoint import open_encoder_checkpoint, output_of

        folder = source.folder / str(version)
        checkpoint = checkpoint_folder(source.message, folder)
        require_checkpoint_near(checkpoint, source.folder)
        config, _ = open_encoder_checkpoint(checkpoint)
        return configure_encoder(source.message, source.name, folder, self._machine, output_of(config))

    def build(self, source: Source, version: int, previous: "EncoderBuild | None", attempt: Attempt) -> "EncoderBuild":
        """Write the graph, compile it, and run it once: see `Backend.build`. Nothing is shared with `previous`."""
        del previous
        config = self.configure(source, version)
        from triune.backends.encoder.build import build_encoder

        attempt.check()
        if self._try_first is not None:
            self._try_first(source, version, attempt)
        key = self._keys.of(source, version)
        return build_encoder(config, source, version, self._machine, self._clock, attempt, self._gate, key)

    def assemble(self, build: "EncoderBuild", models: Models) -> Servable:
        """Create workers, a dispatcher, and a servable that divides large requests: see `Backend.assemble`."""
        del models
        from triune.backends.encoder.assemble import assemble_encoder

        return assemble_encoder(build, self._resources(build, (each.unit for each in build.executables)))
