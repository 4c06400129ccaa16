"""The backend of checkpoints that transcribe speech: Whisper, as a folder in Hugging Face's or CTranslate2's format."""

import importlib.util
from typing import TYPE_CHECKING, Final

from triune.backends.attempt import Attempt
from triune.backends.libraries import missing_libraries, require_libraries
from triune.backends.machine_backend import MachineBackend
from triune.config.configure import Source
from triune.config.links import require_checkpoint_near
from triune.config.model_config import ModelConfig
from triune.config.speech import configure_speech
from triune.config.transformer import named_unit
from triune.core.errors import UnsupportedError
from triune.core.servable import Servable
from triune.runtimes.decoders import decoder_runtime, missing_decoder
from triune.scheduling.models import Models

if TYPE_CHECKING:
    from triune.backends.speech.build import SpeechBuild

_LIBRARIES: Final = ("soundfile", "soxr")
_RUNTIME: Final = "openvino"
"""The preferred runtime for speech, since it was measured to be fast enough. It is used if it is installed and supports
the unit that the config names.
"""


class SpeechBackend(MachineBackend):
    """The `Backend` of models that transcribe speech. The libraries of the extra `engine` are imported when a model
    needs them.
    """

    supports: frozenset[str] = frozenset()

    def configure(self, source: Source, version: int) -> ModelConfig:
        """Complete the configuration of a version, and open its checkpoint: see `Backend.configure`."""
        _require_libraries()
        from triune.backends.speech.build import open_speech_checkpoint

        config = self._configure(source, version)
        open_speech_checkpoint(config.path)
        return config

    def build(self, source: Source, version: int, previous: "SpeechBuild | None", attempt: Attempt) -> "SpeechBuild":
        """Compile encoder and decoder, and run them once: see `Backend.build`. Nothing is shared with `previous`."""
        del previous
        _require_libraries()
        from triune.backends.speech.build import build_speech

        attempt.check()
        if self._try_first is not None:
            self._try_first(source, version, attempt)
        config = self._configure(source, version)
        runtime, judge = self._runtime(source), (self._gate, self._keys.of(source, version))
        return build_speech(config, source, version, self._machine, runtime, self._clock, attempt, judge)

    def assemble(self, build: "SpeechBuild", models: Models) -> Servable:
        """Start the engine: see `Backend.assemble`."""
        del models
        from triune.backends.speech.assemble import assemble_speech

        return assemble_speech(build, self._resources(build, [build.decoder.unit, build.encoder.unit]))

    def _configure(self, source: Source, version: int) -> ModelConfig:
        folder = source.folder / str(version)
        config = configure_speech(source.message, source.name, folder, self._machine, self._runtime(source))
        require_checkpoint_near(config.path, source.folder)
        return config

    def _runtime(self, source: Source) -> str:
        unit = named_unit(source.message)
        runtimes = self._machine.runtimes
        if _RUNTIME in runtimes and (unit is None or unit in runtimes[_RUNTIME].units()):
            return _RUNTIME
        return decoder_runtime(self._machine, unit)


def missing_for_speech() -> str:
    """Name the libraries for speech that are not installed, and the command that installs them; "" if all are
    installed.
    """
    lacking = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if lacking:
        return f"speech needs {', '.join(lacking)}, not installed: pip install 'triune[engine]'"
    return missing_libraries() or missing_decoder()


def _require_libraries() -> None:
    require_libraries()
    if reason := missing_for_speech():
        raise UnsupportedError(reason)
