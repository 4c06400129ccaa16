"""What the configs of all backends for checkpoints share: filling in tensors, reading parameters, refusing settings for
batching, and the model's type.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, cast

from triune.config.datatypes import to_config
from triune.config.parameters import PINNED_PARAMETER
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.files import read_file
from triune.core.tensors import Signature
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.protos.model_config_pb2 import ModelInput, ModelOutput

_MAX_CONFIG_BYTES: Final = 64 << 20
_BATCHING: Final = ("max_batch_size", "dynamic_batching", "sequence_batching", "response_cache", "model_warmup")


def complete_tensors(message: ModelConfigMessage, signature: Signature) -> None:
    """Add the inputs and outputs that the config lacks, as Triton's vLLM backend does. A config that names some inputs
    must name all those that are not optional.
    """
    named = {each.name for each in (*message.input, *message.output)}
    has_inputs = bool(message.input)
    message.input.extend(
        ModelInput(name=spec.name, data_type=to_config(spec.datatype), dims=spec.shape, optional=spec.is_optional)
        for spec in signature.inputs
        if spec.name not in named and (spec.is_optional or not has_inputs)
    )
    message.output.extend(
        ModelOutput(name=spec.name, data_type=to_config(spec.datatype), dims=spec.shape)
        for spec in signature.outputs
        if spec.name not in named
    )


def refuse_batching(message: ModelConfigMessage, why: str) -> None:
    """Raise UnsupportedError if a config has settings for batching, caching or warm-up, which backends for
    checkpoints do by themselves.

    Args:
        message: the config.
        why: the reason, for the error: "a request to backend 'speech' holds one audio file".
    """
    asked = [field.name for field, _ in message.ListFields() if field.name in _BATCHING]
    if not message.response_cache.enable:
        asked = [each for each in asked if each != "response_cache"]
    if asked:
        raise UnsupportedError(
            f"model '{message.name}' has '{asked[0]}'; {why}, and the backend batches and warms up by itself: remove it"
        )


def known_parameters(message: ModelConfigMessage, known: Collection[str], backend: str) -> Mapping[str, str]:
    """The config's parameters by name. Raises InvalidArgumentError if a name is not among `known`, the names that the
    backend reads.
    """
    given = {name: value.string_value for name, value in message.parameters.items()}
    unknown = sorted(given.keys() - known - {PINNED_PARAMETER})
    if unknown:
        raise InvalidArgumentError(
            f"model '{message.name}' has the parameter '{unknown[0]}'; backend '{backend}' knows "
            f"{', '.join(sorted(known))}"
        )
    return given


def model_type_of(folder: Path) -> str | None:
    """Return the field `model_type` of the `config.json` in a folder; None if the file cannot be read or lacks the
    field. The checkpoint's backend later raises the error for such a file.
    """
    try:
        values = cast("object", json.loads(read_file(folder / "config.json", _MAX_CONFIG_BYTES)))
    except (OSError, ValueError, RecursionError):
        return None
    found = cast("dict[str, object]", values).get("model_type") if isinstance(values, dict) else None
    return found if isinstance(found, str) else None
