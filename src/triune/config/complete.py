"""Auto-completion: take fields that a config leaves out from the folder and the model file, by Triton's rules.

Source of the rules: Triton's user guide, "Auto-Generated Model Configuration", and the behaviour of the ONNX Runtime
backend.
"""

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from triune.config.datatypes import to_config
from triune.config.encoder import ENCODER
from triune.config.layout import inside
from triune.config.misplaced import misnamed
from triune.config.naming import named_copy
from triune.config.settings import Completion
from triune.config.speech import SPEECH
from triune.config.transformer import GGUF_FILENAME, TRANSFORMER
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.files import non_file_kind
from triune.core.runtime import Runtime
from triune.core.tensors import Rows, Signature, TensorSpec
from triune.protos.model_config_pb2 import DataType as DataTypeMessage
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.protos.model_config_pb2 import ModelInput, ModelOutput
from triune.runtimes.machine import Machine
from triune.runtimes.registry import PACKAGE_SUFFIXES, ROWS

_log = logging.getLogger(__name__)

_AS_ONNX: Final = "export the model to ONNX ('triune convert' takes models of several frameworks)"
_AS_CHECKPOINT: Final = (
    "put the checkpoint itself (a GGUF file, or config.json with *.safetensors and tokenizer.json) into the version "
    f"folder, and leave the backend out: '{TRANSFORMER}' answers the same requests"
)
_REMEDIES: Final = {
    "vllm": _AS_CHECKPOINT,
    "tensorrtllm": _AS_CHECKPOINT,
    "tensorrt": _AS_ONNX,
    "tensorrt_plan": _AS_ONNX,
    "pytorch": _AS_ONNX,
    "pytorch_libtorch": _AS_ONNX,
    "tensorflow": _AS_ONNX,
    "tensorflow_graphdef": _AS_ONNX,
    "tensorflow_savedmodel": _AS_ONNX,
    "fil": _AS_ONNX,
}
"""How a model of another backend or platform of Triton can be served here."""

_BACKEND_OF_PLATFORM = {row.platform: row.name for row in ROWS if row.platform}
_PLATFORM_OF_BACKEND = {backend: platform for platform, backend in _BACKEND_OF_PLATFORM.items()}


def complete_backend(
    given: ModelConfigMessage, folder_name: str, version_folder: Path, machine: Machine
) -> ModelConfigMessage:
    """Fill in name, backend, platform, file name and version policy, without reading the model file.

    Args:
        given: the config as written; not changed.
        folder_name: the model's folder.
        version_folder: a version's folder; its file names imply the backend if the config does not name one.
        machine: the machine with the available backends.

    Raises:
        InvalidArgumentError: the name is not the folder's, platform and backend disagree, or the backend is unknown.
        UnsupportedError: the backend is not available.
    """
    message = named_copy(given, folder_name)
    backend_of_platform = _BACKEND_OF_PLATFORM.get(message.platform, "")
    if message.platform and message.backend and backend_of_platform != message.backend:
        raise InvalidArgumentError(
            f"unexpected 'platform' and 'backend' pair, got:{message.platform}, {message.backend}"
        )
    if message.platform and not backend_of_platform:
        raise UnsupportedError(
            f"platform '{message.platform}' of model '{message.name}' is not supported; "
            f"{_backends(machine)}{_remedy(message.platform)}"
        )
    message.backend = message.backend or backend_of_platform or _guess_backend(message, version_folder, machine)
    runtime = machine.runtimes.get(message.backend)
    if runtime is None:
        raise UnsupportedError(
            f"backend '{message.backend}' of model '{message.name}' is not available; "
            f"{_backends(machine)}{_remedy(message.backend)}"
        )
    message.platform = message.platform or _PLATFORM_OF_BACKEND.get(message.backend, "")
    message.default_model_filename = message.default_model_filename or _filename(runtime, version_folder)
    if not message.HasField("version_policy"):
        message.version_policy.latest.num_versions = 1
    return message


def model_file(message: ModelConfigMessage, version_folder: Path) -> Path:
    """The path of a version's model file, which `default_model_filename` names.

    If a folder has this name, the file of the same name within the folder is the model file. Apple's packages are
    folders themselves, and are returned as they are.

    Raises:
        InvalidArgumentError: the file does not exist, or its path leads outside the version's folder.
    """
    path = inside(version_folder, message.default_model_filename, "default_model_filename")
    is_package = path.suffix in PACKAGE_SUFFIXES
    is_within = False
    try:
        is_within = path.is_dir() and not is_package
        if is_within:
            path /= path.name
        kind = non_file_kind(path)
        problem = "" if kind == ("a folder" if is_package else None) else f": it is {kind or 'a file'}"
    except OSError as error:
        problem = f": it is a folder, and in it: {error.strerror}" if is_within else f": {error.strerror}"
    if problem:
        raise InvalidArgumentError(
            f"unable to find '{message.default_model_filename}' of model '{message.name}' in its version folder "
            f"'{version_folder.name}'{problem}; put the model file there, or name it in 'default_model_filename'"
            f"{misnamed(version_folder)}"
        )
    return path


def complete_tensors(message: ModelConfigMessage, signature: Signature, completion: Completion) -> None:
    """Fill in max_batch_size, dynamic_batching, inputs and outputs in place, where the config leaves them out.

    The model can batch if it has inputs, and the first dimension of every tensor is free and has the same size. If
    inputs or outputs are missing from the config of such a model, a max_batch_size of 0 becomes the default, or the
    file's limit if that is smaller. If it is then above 1, and no scheduler is chosen, the dynamic batcher is turned
    on. A tensor without data_type or dims gets them from the file. An optional input is filled in only if it is a
    state.

    Raises:
        InvalidArgumentError: max_batch_size is set, but the model cannot batch, or the file's limit is smaller.
    """
    limit = signature.max_batch_size
    if limit is not None and message.max_batch_size > limit:
        raise InvalidArgumentError(
            f"max_batch_size of model '{message.name}' is {message.max_batch_size}, but its file takes "
            f"{f'{limit} rows at most' if limit else 'no batches'}; set max_batch_size to {limit}"
        )
    if not message.input or not message.output:
        _complete_batching(message, signature, completion.default_max_batch_size(message.backend))
    if not message.input:
        shown = [spec for spec in signature.inputs if spec.is_state or not spec.is_optional]
        message.input.extend(ModelInput(name=spec.name, optional=spec.is_optional) for spec in shown)
    if not message.output:
        message.output.extend(ModelOutput(name=spec.name) for spec in signature.outputs)
    _complete_each(message.input, signature.inputs, message.max_batch_size)
    _complete_each(message.output, signature.outputs, message.max_batch_size)
    batching = message.dynamic_batching if message.HasField("dynamic_batching") else None
    if batching is not None and not batching.preferred_batch_size and message.max_batch_size > 0:
        batching.preferred_batch_size.append(message.max_batch_size)


def refuse_incomplete(message: ModelConfigMessage) -> None:
    """Raise InvalidArgumentError if a config lacks a required field. Call this if auto-completion is turned off."""
    model = f"model '{message.name}'"
    remedy = "say so in its config, or start the server without --disable-auto-complete-config"
    if not message.backend and not message.platform:
        raise InvalidArgumentError(f"must specify 'platform' or 'backend' for {model}; {remedy}")
    for kind, tensors in (("input", message.input), ("output", message.output)):
        if not tensors:
            raise InvalidArgumentError(f"{model} must specify one or more '{kind}'s; {remedy}")
        for tensor in tensors:
            if tensor.data_type == DataTypeMessage.TYPE_INVALID:
                raise InvalidArgumentError(f"{model}, {kind} '{tensor.name}' must specify 'data_type'; {remedy}")
            if not tensor.dims:
                raise InvalidArgumentError(f"{model}, {kind} '{tensor.name}' must specify 'dims'; {remedy}")


def _complete_batching(message: ModelConfigMessage, signature: Signature, default_max_batch_size: int) -> None:
    inputs = [spec for spec in signature.inputs if not spec.is_optional]
    fixed = [spec for spec in (*inputs, *signature.outputs) if not spec.shape or spec.shape[0] != -1]
    if fixed or not inputs:
        if message.max_batch_size > 0:
            reason = f"the first dimension of {fixed[0]} is not free" if fixed else "it has no inputs"
            raise InvalidArgumentError(
                f"autofill failed for model '{message.name}': model does not support batching while non-zero "
                f"max_batch_size is specified: {reason}; set max_batch_size to 0"
            )
        return
    limit = signature.max_batch_size
    if message.max_batch_size == 0:
        if signature.rows is not Rows.SAME:
            _log.info(
                "model '%s' is not batched: nothing says that its outputs have as many rows as its inputs; give the "
                "first dimension of all of them one name in the model, or set max_batch_size",
                message.name,
            )
            return
        message.max_batch_size = max(default_max_batch_size if limit is None else min(default_max_batch_size, limit), 0)
        if limit == 0:
            return
        _log.info("model '%s': max_batch_size is completed to %d", message.name, message.max_batch_size)
    if message.max_batch_size > 1 and message.WhichOneof("scheduling_choice") is None:
        message.dynamic_batching.SetInParent()


def _complete_each(
    tensors: Iterable[ModelInput | ModelOutput], specs: Sequence[TensorSpec], max_batch_size: int
) -> None:
    by_name = {spec.name: spec for spec in specs}
    for tensor in tensors:
        spec = by_name.get(tensor.name)
        if spec is None:
            continue
        if tensor.data_type == DataTypeMessage.TYPE_INVALID:
            tensor.data_type = to_config(spec.datatype)
        if not tensor.dims and not spec.has_rank:
            raise InvalidArgumentError(
                f"the model file does not say how many dimensions '{tensor.name}' has: give its 'dims' in the config"
            )
        if not tensor.dims:
            row = spec.shape[1:] if max_batch_size > 0 else spec.shape
            tensor.dims.extend(row or (1,))
            if not row and max_batch_size > 0 and not tensor.HasField("reshape"):
                tensor.reshape.SetInParent()


def _guess_backend(message: ModelConfigMessage, version_folder: Path, machine: Machine) -> str:
    # If two backends read the same file, choose the one that Triton has a platform for.
    for name in sorted(machine.runtimes, key=lambda each: each not in _PLATFORM_OF_BACKEND):
        runtime = machine.runtimes[name]
        if message.default_model_filename:
            if message.default_model_filename in runtime.default_filenames:
                return name
        elif any(_is_there(version_folder / filename) for filename in runtime.default_filenames):
            return name
    if message.default_model_filename:
        raise InvalidArgumentError(
            f"must specify 'platform' or 'backend' for '{message.name}': the file name "
            f"'{message.default_model_filename}' does not tell it; {_backends(machine)}"
        )
    names = sorted({filename for runtime in machine.runtimes.values() for filename in runtime.default_filenames})
    raise InvalidArgumentError(
        f"could not determine backend for model '{message.name}': its config names none, and version folder "
        f"'{version_folder.name}' has no {' or '.join(names)}, and for a transformer no {GGUF_FILENAME}, or "
        f"config.json with *.safetensors{misnamed(version_folder)}"
    )


def _filename(runtime: Runtime, version_folder: Path) -> str:
    """The first default file name that exists; if none exists, the most common name, for the error message."""
    names = runtime.default_filenames
    return next((name for name in names if _is_there(version_folder / name)), names[0])


def _is_there(path: Path) -> bool:
    """Whether the path exists. A broken link counts as existing, since `model_file` raises the error for it."""
    return os.path.lexists(path)


def _remedy(name: str) -> str:
    return f"; {_REMEDIES[name]}" if name in _REMEDIES else ""


def _backends(machine: Machine) -> str:
    return f"backends here: {', '.join((*machine.runtimes, TRANSFORMER, ENCODER, SPEECH))}"
