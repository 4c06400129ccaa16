"""The configs of models for the transformer engine. Such a model is recognised by its files, and its config is
completed like one of Triton's vLLM backend.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias, cast, get_args

from triune.config.checkpoints import known_parameters, refuse_batching
from triune.config.exports import ONNX_FILENAME, is_exported_decoder
from triune.config.instances import parse_units
from triune.config.layout import inside
from triune.config.limits import LOAD_SECONDS_PARAMETER, RUN_SECONDS_PARAMETER
from triune.config.misplaced import misnamed
from triune.config.model_config import ModelConfig
from triune.config.naming import named_copy
from triune.config.one_instance import one_instance_config, read_choice, read_count, unit_of
from triune.config.parameters import TOLERANCE_PARAMETER, UNITS_PARAMETER
from triune.core.datatypes import DataType
from triune.core.decoder import CacheType, DecoderPrecision
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.printable import printable
from triune.core.tensors import Signature, TensorSpec
from triune.core.units import Unit
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.protos.model_config_pb2 import ModelInstanceGroup
from triune.runtimes.decoders import decoder_runtime
from triune.runtimes.machine import Machine
from triune.runtimes.registry import ROWS

Speculation: TypeAlias = Literal["off", "ngram", "draft"]

TRANSFORMER: Final = "transformer"
"""The name of the backend in config.pbtxt."""

GGUF_FILENAME: Final = "model.gguf"
_STEP_TOKENS: Final = 512
_MAX_SEQUENCES: Final = 64
_MOST_STEP_TOKENS: Final = 1 << 17
_MOST_SEQUENCES: Final = 1024
_GGUF_SUFFIX: Final = ".gguf"

TEXT_INPUT: Final = "text_input"
STREAM_INPUT: Final = "stream"
SAMPLING_INPUT: Final = "sampling_parameters"
EXCLUDE_INPUT: Final = "exclude_input_in_output"
TEXT_OUTPUT: Final = "text_output"

ADDITIONAL_OUTPUTS: Final[Mapping[str, tuple[DataType, int]]] = {
    "finish_reason": (DataType.BYTES, -1),
    "cumulative_logprob": (DataType.FP32, -1),
    "logprobs": (DataType.BYTES, -1),
    "num_input_tokens": (DataType.UINT32, 1),
    "num_output_tokens": (DataType.UINT32, -1),
    "prompt_logprobs": (DataType.BYTES, 1),
}
"""Outputs that a request has if it asks for them by the input `return_` with the output's name: datatype and size of
the only dimension, -1 for one element per answer. All but the last are those of Triton's vLLM backend.
"""


def flag_of(output: str) -> str:
    """The name of the input, BOOL [1], by which a request asks for one of `ADDITIONAL_OUTPUTS`."""
    return f"return_{output}"


_SIGNATURE: Final = Signature(
    inputs=(
        TensorSpec(TEXT_INPUT, DataType.BYTES, (1,)),
        TensorSpec(STREAM_INPUT, DataType.BOOL, (1,), is_optional=True),
        TensorSpec(SAMPLING_INPUT, DataType.BYTES, (1,), is_optional=True),
        TensorSpec(EXCLUDE_INPUT, DataType.BOOL, (1,), is_optional=True),
        *(TensorSpec(flag_of(name), DataType.BOOL, (1,), is_optional=True) for name in ADDITIONAL_OUTPUTS),
    ),
    outputs=(
        TensorSpec(TEXT_OUTPUT, DataType.BYTES, (-1,)),
        *(TensorSpec(name, datatype, (size,)) for name, (datatype, size) in ADDITIONAL_OUTPUTS.items()),
    ),
)


@dataclass(frozen=True, slots=True)
class TransformerOptions:
    """The parameters of the backend `transformer` in a config.

    Attributes:
        cache_bytes: the memory of the cache of keys and values; None means a fraction of the machine's memory.
        cache_type: the element type of keys and values in the cache; None means the runtime's default.
        context_tokens: the most tokens of prompt and answer together, or of each of them if an encoder reads the
            prompt; None means the model's own limit.
        precision: the floating-point format of the computation; None means the runtime's default.
        step_tokens: the most tokens of a step, over all sequences; at most 131,072.
        max_sequences: the most sequences that run at the same time; at most 1,024.
        disk_cache_bytes: the largest size of the files that hold blocks which do not fit into the cache; None writes no
            files.
        preempted_bytes: the most memory for keys and values of preempted answers, whose cache blocks were given to
            others; with None, they are computed again.
        speculation: the method of speculative decoding. "ngram" proposes the tokens that followed the same tokens
            earlier in the text, "draft" uses the draft model, and "off" proposes only tokens that a constraint forces.
        draft_model: the draft model: the path of a checkpoint within the model's folder, or the name of another model
            of the repository, whose newest version is loaded once more; None if there is none.
        draft_unit: the unit on which the draft model runs; None means the unit of the model.
        adapters: folders of LoRA adapters by name, within the model's folder; adapters in `VERSION/adapters` are found
            without an entry.
        reproducible: whether logits depend only on the preceding tokens of the sequence, and not on other sequences in
            the step.
    """

    cache_bytes: int | None = None
    cache_type: CacheType | None = None
    context_tokens: int | None = None
    precision: DecoderPrecision | None = None
    step_tokens: int = _STEP_TOKENS
    max_sequences: int = _MAX_SEQUENCES
    disk_cache_bytes: int | None = None
    preempted_bytes: int | None = None
    speculation: Speculation = "off"
    draft_model: str | None = None
    draft_unit: Unit | None = None
    adapters: Mapping[str, str] = field(default_factory=dict[str, str])
    reproducible: bool = False


OPTION_NAMES: Final = frozenset(each.name for each in fields(TransformerOptions)) | {
    UNITS_PARAMETER,
    TOLERANCE_PARAMETER,
    LOAD_SECONDS_PARAMETER,
    RUN_SECONDS_PARAMETER,
}
"""All parameters that the backend `transformer` reads."""


def is_transformer(message: ModelConfigMessage, folder: Path, versions: Sequence[int]) -> bool:
    """Whether the transformer engine runs a model: its config says so, or it names no backend and the newest version is
    a checkpoint or a decoder that was exported to ONNX with its tokenizer.
    """
    if message.backend or message.platform or message.HasField("ensemble_scheduling"):
        return message.backend == TRANSFORMER
    if message.default_model_filename:
        return message.default_model_filename.endswith(_GGUF_SUFFIX)
    version_folder = folder / str(max(versions, default=0))
    if is_exported_decoder(version_folder):
        return True
    # A folder with another runtime's model is a tensor model, even if the weights of the checkpoint from which it was
    # exported are in the same folder.
    if any((version_folder / f"model{suffix}").exists() for row in ROWS for suffix in row.suffixes):
        return False
    return (version_folder / GGUF_FILENAME).exists() or _is_directory_of_weights(version_folder)


def read_transformer_options(message: ModelConfigMessage) -> TransformerOptions:
    """Read the parameters of the backend `transformer`.

    Raises:
        InvalidArgumentError: a parameter is unknown or out of range.
    """
    given = known_parameters(message, OPTION_NAMES, TRANSFORMER)
    options = TransformerOptions(
        cache_bytes=read_count(given, "cache_bytes"),
        cache_type=cast("CacheType | None", read_choice(given, "cache_type", get_args(CacheType))),
        context_tokens=read_count(given, "context_tokens"),
        precision=cast("DecoderPrecision | None", read_choice(given, "precision", get_args(DecoderPrecision))),
        step_tokens=read_count(given, "step_tokens", _MOST_STEP_TOKENS, "a longer prompt is read in several steps")
        or _STEP_TOKENS,
        max_sequences=read_count(
            given, "max_sequences", _MOST_SEQUENCES, "let more answers wait by --max-queue-size, or serve another copy"
        )
        or _MAX_SEQUENCES,
        disk_cache_bytes=read_count(given, "disk_cache_bytes"),
        preempted_bytes=read_count(given, "preempted_bytes"),
        speculation=_speculation(given),
        draft_model=given.get("draft_model"),
        draft_unit=_draft_unit(given),
        adapters=_folders(given, "adapters"),
        reproducible=read_choice(given, "reproducible", ("true", "false")) == "true",
    )
    return _in_fp32(options) if options.reproducible else options


def _speculation(given: Mapping[str, str]) -> Speculation:
    """The method of speculative decoding that a config names. If it names none: "draft" with a `draft_model`, else
    "off".
    """
    has_draft = "draft_model" in given
    chosen = read_choice(given, "speculation", get_args(Speculation)) or ("draft" if has_draft else "off")
    if has_draft != (chosen == "draft"):
        raise InvalidArgumentError(
            f"parameter 'speculation' is '{chosen}', and 'draft_model' is "
            f"{'given' if has_draft else 'missing'}: 'draft' needs it, and nothing else takes it"
        )
    return cast("Speculation", chosen)


def _draft_unit(given: Mapping[str, str]) -> Unit | None:
    """The unit that a config names for its draft model; None if it names none."""
    word = read_choice(given, "draft_unit", [unit.value for unit in Unit])
    if word is None:
        return None
    if "draft_model" not in given:
        raise InvalidArgumentError(
            f"parameter 'draft_unit' is '{word}', and 'draft_model' is missing: it names the model"
        )
    if word == Unit.ANE.value:
        raise UnsupportedError(
            "parameter 'draft_unit' is 'ane', where a cache holds whole sequences, so that guesses cannot be taken "
            "back: name another unit"
        )
    return Unit(word)


def _in_fp32(options: TransformerOptions) -> TransformerOptions:
    """Adapt the options for reproducible answers: compute in fp32, and use a cache type that rounds each number
    separately.
    """
    if options.precision not in (None, "fp32"):
        raise InvalidArgumentError(
            f"parameter 'precision' is '{options.precision}', and 'reproducible' is 'true', which needs 'fp32': remove "
            "one of them"
        )
    if options.cache_type not in (None, "fp32", "fp16"):
        raise InvalidArgumentError(
            f"parameter 'cache_type' is '{options.cache_type}', and 'reproducible' is 'true', which needs 'fp32' or "
            "'fp16': remove one of them"
        )
    return replace(options, precision="fp32", cache_type=options.cache_type or "fp32")


def named_unit(message: ModelConfigMessage) -> Unit | None:
    """The unit that a config names; None if the config leaves the choice to the runtime, or the unit does not exist."""
    word = message.parameters[UNITS_PARAMETER].string_value if UNITS_PARAMETER in message.parameters else ""
    if not word and message.instance_group:
        kinds = {ModelInstanceGroup.KIND_CPU: Unit.CPU, ModelInstanceGroup.KIND_GPU: Unit.GPU}
        return kinds.get(message.instance_group[0].kind)
    return next((unit for unit in Unit if unit.value == word.strip().lower()), None)


def configure_transformer(
    given: ModelConfigMessage, name: str, version_folder: Path, machine: Machine, runtime: str
) -> ModelConfig:
    """Complete the configuration of a version. Reads no weights.

    Args:
        given: the config as written; not changed.
        name: the model's folder.
        version_folder: the version's folder.
        machine: the machine with the units.
        runtime: the name of the runtime that will run the decoder.

    Raises:
        InvalidArgumentError: the config contradicts itself or the files.
        UnsupportedError: the config requests something that the engine or this machine does not support.
    """
    message = named_copy(given, name)
    refuse_batching(message, f"a request to backend '{TRANSFORMER}' holds one prompt")
    message.backend = TRANSFORMER
    message.model_transaction_policy.decoupled = True
    if not message.HasField("version_policy"):
        message.version_policy.latest.num_versions = 1
    path = _checkpoint(message, version_folder)
    options = read_transformer_options(message)
    if options.draft_unit is not None:
        _require_decoders(options.draft_unit, machine, "draft_unit")
    units = _several_units(message, options, machine) or (
        unit_of(message, options.precision, machine, runtime, TRANSFORMER),
    )
    return one_instance_config(message, path, _SIGNATURE, units, is_decoupled=True)


def _several_units(message: ModelConfigMessage, options: TransformerOptions, machine: Machine) -> tuple[Unit, ...]:
    """Return the units of a config that names several, and complete its instance groups; empty if it names at most one
    unit.
    """
    word = message.parameters[UNITS_PARAMETER].string_value if UNITS_PARAMETER in message.parameters else ""
    units = parse_units(word) if "," in word else []
    if len(units) < 2:
        return ()
    if options.reproducible:
        raise InvalidArgumentError(
            f"parameter 'units' of model '{message.name}' is '{printable(word)}', and 'reproducible' is 'true': what "
            "two units compute differs by rounding; name one unit"
        )
    for unit in units:
        _require_decoders(unit, machine, UNITS_PARAMETER)
    # Have `unit_of` check the config as if it named only the first unit. The config may ask for at most one instance on
    # a unit, since the engine batches all requests there.
    alone = ModelConfigMessage()
    alone.CopyFrom(message)
    alone.parameters[UNITS_PARAMETER].string_value = units[0].value
    unit_of(alone, options.precision, machine, decoder_runtime(machine, units[0]), TRANSFORMER)
    if options.precision == "fp32" and Unit.AMX in units:
        raise InvalidArgumentError(
            f"'precision' of model '{message.name}' is 'fp32', and the unit 'amx' computes in bf16: leave one of them "
            "out"
        )
    del message.instance_group[:]
    message.instance_group.extend(alone.instance_group)
    return tuple(units)


def _require_decoders(unit: Unit, machine: Machine, parameter: str) -> None:
    """Raise UnsupportedError if no runtime computes transformers on a unit, which a parameter of the config names."""
    runtime = decoder_runtime(machine, unit)
    # If the unit is absent, this call raises the error with the reason.
    machine.runtime_for(runtime, unit, f" in parameter '{parameter}'")
    if unit not in machine.runtimes[runtime].units():
        raise UnsupportedError(
            f"no runtime computes transformers on '{unit.value}' here; leave it out of '{parameter}'"
        )


def _checkpoint(message: ModelConfigMessage, version_folder: Path) -> Path:
    """Return the GGUF or ONNX file, or the version's folder if that contains the weights. Fills in the file's name in
    the config.
    """
    if not message.default_model_filename:
        if not is_exported_decoder(version_folder) and _is_directory_of_weights(version_folder):
            return version_folder
        if (version_folder / ONNX_FILENAME).is_file():
            message.default_model_filename = ONNX_FILENAME
    message.default_model_filename = message.default_model_filename or GGUF_FILENAME
    path = inside(version_folder, message.default_model_filename, "default_model_filename")
    if path.is_dir() and _is_directory_of_weights(path):
        return path
    if not path.is_file():
        raise InvalidArgumentError(
            f"model '{message.name}' has no '{message.default_model_filename}' in its version folder "
            f"'{version_folder.name}', and not config.json with *.safetensors: put a GGUF file, a directory of "
            "Hugging Face's form, or an ONNX decoder with its config and tokenizer.json there"
            f"{misnamed(version_folder)}"
        )
    return path


def _is_directory_of_weights(folder: Path) -> bool:
    return (folder / "config.json").exists() and next(folder.glob("*.safetensors"), None) is not None


def _folders(given: Mapping[str, str], name: str) -> Mapping[str, str]:
    """Read a parameter that is a JSON object of paths by name."""
    text = given.get(name)
    if text is None:
        return {}
    try:
        value = cast("object", json.loads(text))
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"parameter '{name}' is not JSON: {error}") from None
    entries = cast("dict[str, object]", value) if isinstance(value, dict) else {"": None}
    if not all(isinstance(path, str) for path in entries.values()):
        raise InvalidArgumentError(
            f'parameter \'{name}\' must be a JSON object of names and folders: {{"poet": "adapters/poet"}}'
        )
    return cast("dict[str, str]", entries)
