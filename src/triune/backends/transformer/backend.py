"""The backend of transformers that generate text: a GGUF file, a directory of Hugging Face's form, or a decoder that
was exported to ONNX.
"""

from typing import TYPE_CHECKING

from triune.backends.attempt import Attempt
from triune.backends.libraries import missing_libraries, require_libraries
from triune.backends.machine_backend import MachineBackend
from triune.config.configure import Source
from triune.config.links import require_checkpoint_near
from triune.config.model_config import ModelConfig
from triune.config.transformer import configure_transformer, named_unit
from triune.core.servable import Servable
from triune.runtimes.decoders import decoder_runtime, missing_decoder
from triune.scheduling.models import Models

if TYPE_CHECKING:
    from triune.backends.transformer.build import TransformerBuild


class TransformerBackend(MachineBackend):
    """The `Backend` of transformers. The libraries of the extra `engine` are imported when a model needs them."""

    supports: frozenset[str] = frozenset({"model_transaction_policy.decoupled"})

    def configure(self, source: Source, version: int) -> ModelConfig:
        """Complete the configuration of a version, and open its files: see `Backend.configure`."""
        require_libraries()
        from triune.backends.transformer.checkpoint import open_decoder_files

        config = self._configure(source, version)
        open_decoder_files(config.path)
        return config

    def build(
        self, source: Source, version: int, previous: "TransformerBuild | None", attempt: Attempt
    ) -> "TransformerBuild":
        """Open the checkpoint, compile the decoder, and run it once: see `Backend.build`. Nothing is shared with
        `previous`.
        """
        del previous
        require_libraries()
        from triune.backends.transformer.build import build_transformer

        attempt.check()
        if self._try_first is not None:
            self._try_first(source, version, attempt)
        config = self._configure(source, version)
        return build_transformer(
            config,
            source,
            version,
            self._machine,
            self._clock,
            attempt,
            is_trial=self._is_trial,
            judge=(self._gate, self._keys.of(source, version)),
        )

    def assemble(self, build: "TransformerBuild", models: Models) -> Servable:
        """Start the engine: see `Backend.assemble`."""
        del models
        from triune.backends.transformer.assemble import assemble_transformer

        return assemble_transformer(build, self._resources(build, build.units))

    def _configure(self, source: Source, version: int) -> ModelConfig:
        folder = source.folder / str(version)
        config = configure_transformer(source.message, source.name, folder, self._machine, self._runtime(source))
        require_checkpoint_near(config.path, source.folder)
        return config

    def _runtime(self, source: Source) -> str:
        return decoder_runtime(self._machine, named_unit(source.message))


def missing_for_transformers() -> str:
    """Name the libraries for transformers that are not installed, and the command that installs them; "" if all are
    installed.
    """
    return missing_libraries() or missing_decoder()
