"""Configs of models that transcribe speech. They are recognised by their files, and get tensors for audio and text."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, cast, get_args

from triune.config.checkpoints import known_parameters, model_type_of, refuse_batching
from triune.config.layout import inside
from triune.config.limits import LOAD_SECONDS_PARAMETER
from triune.config.model_config import ModelConfig
from triune.config.naming import named_copy
from triune.config.one_instance import one_instance_config, read_choice, read_count, unit_of
from triune.config.parameters import TOLERANCE_PARAMETER, UNITS_PARAMETER
from triune.core.datatypes import DataType
from triune.core.decoder import DecoderPrecision
from triune.core.tensors import Signature, TensorSpec
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.runtimes.machine import Machine

SPEECH: Final = "speech"
"""The name of the backend in config.pbtxt."""

AUDIO_INPUT: Final = "audio"
SAMPLES_INPUT: Final = "samples"
LANGUAGE_INPUT: Final = "language"
TASK_INPUT: Final = "task"
PROMPT_INPUT: Final = "prompt"
TEXT_OUTPUT: Final = "text_output"

_MAX_SEQUENCES: Final = 8
_MAX_SECONDS: Final = 3600
_MOST_SEQUENCES: Final = 1024

_SIGNATURE: Final = Signature(
    inputs=(
        TensorSpec(AUDIO_INPUT, DataType.BYTES, (1,), is_optional=True),
        TensorSpec(SAMPLES_INPUT, DataType.FP32, (-1,), is_optional=True),
        TensorSpec(LANGUAGE_INPUT, DataType.BYTES, (1,), is_optional=True),
        TensorSpec(TASK_INPUT, DataType.BYTES, (1,), is_optional=True),
        TensorSpec(PROMPT_INPUT, DataType.BYTES, (1,), is_optional=True),
    ),
    outputs=(TensorSpec(TEXT_OUTPUT, DataType.BYTES, (1,)),),
)


@dataclass(frozen=True, slots=True)
class SpeechOptions:
    """The backend's parameters in a config.

    Attributes:
        max_sequences: the most audio files that are transcribed at the same time; at most 1,024.
        max_audio_seconds: the longest allowed audio file, in seconds.
        precision: the floating-point format of the computation; None means the runtime's default.
    """

    max_sequences: int = _MAX_SEQUENCES
    max_audio_seconds: int = _MAX_SECONDS
    precision: DecoderPrecision | None = None


SPEECH_OPTION_NAMES: Final = frozenset(each.name for each in fields(SpeechOptions)) | {
    UNITS_PARAMETER,
    TOLERANCE_PARAMETER,
    LOAD_SECONDS_PARAMETER,
}
"""All parameters that the backend reads."""


def is_speech(message: ModelConfigMessage, folder: Path, versions: Sequence[int]) -> bool:
    """Whether a model reads speech: its config names the speech backend, or it names neither a backend nor a file and
    the newest version is a Whisper checkpoint of Hugging Face or CTranslate2.
    """
    if message.backend or message.platform or message.HasField("ensemble_scheduling"):
        return message.backend == SPEECH
    version_folder = folder / str(max(versions, default=0))
    if message.default_model_filename or not (version_folder / "config.json").exists():
        return False
    if next(version_folder.glob("*.safetensors"), None) is None:
        # A checkpoint in CTranslate2's form is a Whisper model: no other models are supported in that form.
        return (version_folder / "model.bin").exists()
    return model_type_of(version_folder) == "whisper"


def read_speech_options(message: ModelConfigMessage) -> SpeechOptions:
    """Read the backend's parameters. Raises InvalidArgumentError if a parameter is unknown or out of range."""
    given = known_parameters(message, SPEECH_OPTION_NAMES, SPEECH)
    return SpeechOptions(
        read_count(given, "max_sequences", _MOST_SEQUENCES, "let more files wait by --max-queue-size")
        or _MAX_SEQUENCES,
        read_count(given, "max_audio_seconds") or _MAX_SECONDS,
        cast("DecoderPrecision | None", read_choice(given, "precision", get_args(DecoderPrecision))),
    )


def configure_speech(
    given: ModelConfigMessage, name: str, version_folder: Path, machine: Machine, runtime: str
) -> ModelConfig:
    """Complete the configuration of a version. Reads no weights.

    Args:
        given: the config as written; not changed.
        name: the model's folder.
        version_folder: the version's folder.
        machine: the machine with the units.
        runtime: the name of the runtime that will run encoder and decoder.

    Raises:
        InvalidArgumentError: the config contradicts itself.
        UnsupportedError: the config requests something that the backend or this machine does not support.
    """
    message = named_copy(given, name)
    refuse_batching(message, f"a request to backend '{SPEECH}' holds one audio file")
    message.backend = SPEECH
    if not message.HasField("version_policy"):
        message.version_policy.latest.num_versions = 1
    options = read_speech_options(message)
    path = version_folder
    if message.default_model_filename:
        path = inside(version_folder, message.default_model_filename, "default_model_filename")
    unit = unit_of(message, options.precision, machine, runtime, SPEECH)
    return one_instance_config(message, path, _SIGNATURE, (unit,), is_decoupled=False)
