"""Sample inputs for a model: the warm-up samples of its config, and generated ones."""

from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Final

import numpy as np

from triune.config.datatypes import from_config
from triune.config.layout import WARMUP_FOLDER, inside
from triune.config.links import require_near
from triune.config.model_config import ModelConfig, TensorConfig, WarmupSample
from triune.config.reshape import reshape_to_model
from triune.core.datatypes import Array, DataType
from triune.core.errors import InvalidArgumentError
from triune.core.files import read_file
from triune.core.tensors import format_shape
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.protos.model_config_pb2 import ModelWarmup

MAX_WARMUP_RUNS: Final = 10_000
"""The largest number of runs of all warm-up samples of a model together."""

_MAX_INPUT_BYTES = 1 << 30
_MAX_GUESSED_BYTES = 64 << 20
_FREE_SIZES = (16, 1, 64, 256, 512)
_SEED = 20_25


def translate_warmup(message: ModelConfigMessage, inputs: Mapping[str, TensorConfig]) -> tuple[WarmupSample, ...]:
    """Read the warm-up samples of a config. A sample of batch size 0 is left out, as in Triton.

    Raises:
        InvalidArgumentError: a sample does not fit the model, or the samples have too many runs.
    """
    samples = tuple(
        _translate_sample(sample, message, inputs) for sample in message.model_warmup if sample.batch_size > 0
    )
    num_runs = sum(sample.num_runs for sample in samples)
    if num_runs > MAX_WARMUP_RUNS:
        raise InvalidArgumentError(
            f"model '{message.name}': the warm-up samples have {num_runs} runs together; {MAX_WARMUP_RUNS} are the "
            "limit: give smaller counts"
        )
    return samples


def warmup_inputs(sample: WarmupSample, config: ModelConfig, folder: Path) -> dict[str, Array]:
    """Make the arrays of a warm-up sample, in the model's shapes. The sample has one row, which is repeated to its
    batch size.

    Args:
        sample: a sample of the config.
        config: the model's configuration.
        folder: the model's folder, whose folder `warmup` has the raw files.

    Raises:
        InvalidArgumentError: a raw file is missing or too small.
    """
    has_batch = config.batching.max_batch_size > 0
    random = np.random.default_rng(_SEED)
    arrays: dict[str, Array] = {}
    for name, (datatype, shape, source) in sample.inputs.items():
        if source in ("zero", "random"):
            row = _zeros(datatype, shape) if source == "zero" else _random(datatype, shape, random)
        else:
            path = inside(folder / WARMUP_FOLDER, source, "input_data_file")
            require_near(path, folder, "input_data_file")
            row = _read_raw(path, datatype, shape, f"warm-up sample '{sample.name}'")
        array = np.repeat(row[np.newaxis], sample.batch_size, axis=0) if has_batch else row
        arrays[name] = reshape_to_model(array, config.inputs[name], has_batch=has_batch)
    return arrays


def sample_inputs(
    config: ModelConfig, batch_size: int, free_size: int = _FREE_SIZES[0], *, max_bytes: int = _MAX_INPUT_BYTES
) -> dict[str, Array]:
    """Generate inputs in the model's shapes, the same in each call.

    Integers are 0 or 1, so that they are valid as indices and as masks; the first of each row is 1. Floats have a
    normal distribution with standard deviation 1. Optional inputs are left out.

    Args:
        config: the model's configuration.
        batch_size: the number of rows, if the model has a batch dimension.
        free_size: the size of every free dimension.
        max_bytes: the size limit of each input.

    Raises:
        InvalidArgumentError: an input would be larger than `max_bytes`.
    """
    has_batch = config.batching.max_batch_size > 0
    random = np.random.default_rng(_SEED)
    arrays: dict[str, Array] = {}
    for name, tensor in config.inputs.items():
        if tensor.is_optional:
            continue
        row = tuple(free_size if dim == -1 else dim for dim in tensor.dims)
        shape = (batch_size, *row) if has_batch else row
        _check_size(tensor.datatype, shape, f"a sample of input '{name}'", max_bytes)
        arrays[name] = reshape_to_model(_random(tensor.datatype, shape, random), tensor, has_batch=has_batch)
    return arrays


def trial_inputs(config: ModelConfig, folder: Path) -> Iterator[dict[str, Array]]:
    """Yield sample inputs that the model may accept, the most likely ones first.

    First come the warm-up samples, except samples that are all zeros, which would hide errors; then generated ones of
    several sizes. Samples above the size limit are left out.
    """
    for sample in config.warmup:
        if any(source != "zero" for _, _, source in sample.inputs.values()):
            yield warmup_inputs(sample, config, folder)
    is_free = any(-1 in tensor.dims for tensor in config.inputs.values())
    for free_size in _FREE_SIZES if is_free else _FREE_SIZES[:1]:
        try:
            inputs = sample_inputs(config, 1, free_size, max_bytes=_MAX_GUESSED_BYTES if is_free else _MAX_INPUT_BYTES)
        except InvalidArgumentError:
            continue
        yield inputs


def _translate_sample(
    sample: ModelWarmup, message: ModelConfigMessage, inputs: Mapping[str, TensorConfig]
) -> WarmupSample:
    what = f"model '{message.name}': warm-up sample '{sample.name}'"
    limit = max(message.max_batch_size, 1)
    if sample.batch_size > limit:
        raise InvalidArgumentError(f"{what} has batch_size {sample.batch_size}; this model takes at most {limit}")
    missing = [name for name, tensor in inputs.items() if name not in sample.inputs and not tensor.is_optional]
    if missing:
        raise InvalidArgumentError(f"{what} gives no data for input {', '.join(missing)}")
    translated: dict[str, tuple[DataType, tuple[int, ...], str]] = {}
    for name, given in sample.inputs.items():
        tensor = inputs.get(name)
        if tensor is None:
            raise InvalidArgumentError(f"{what}: unexpected input '{name}', allowed inputs are: {', '.join(inputs)}")
        translated[name] = _translate_input(given, tensor, f"{what}, input '{name}'", sample.batch_size)
    return WarmupSample(sample.name, max(sample.count, 1), sample.batch_size, translated)


def _translate_input(
    given: ModelWarmup.Input, tensor: TensorConfig, what: str, batch_size: int
) -> tuple[DataType, tuple[int, ...], str]:
    datatype = from_config(given.data_type, what)
    if datatype is not tensor.datatype:
        raise InvalidArgumentError(f"{what} has datatype {datatype.value}, expected {tensor.datatype.value}")
    dims = tuple(given.dims)
    if any(dim < 0 for dim in dims):
        raise InvalidArgumentError(
            f"{what}: warmup setting expects all variable-size dimensions are specified, found {format_shape(dims)}"
        )
    if len(dims) != len(tensor.dims) or any(
        expected not in (-1, dim) for dim, expected in zip(dims, tensor.dims, strict=True)
    ):
        raise InvalidArgumentError(f"{what} has dims {format_shape(dims)}, expected {format_shape(tensor.dims)}")
    _check_size(datatype, (batch_size, *dims), what)
    match given.WhichOneof("input_data_type"):
        case "zero_data":
            source = "zero"
        case "random_data":
            # Strings are never random, as in Triton.
            source = "zero" if datatype is DataType.BYTES else "random"
        case "input_data_file":
            inside(Path(WARMUP_FOLDER), given.input_data_file, f"{what}: input_data_file")
            # "./" distinguishes a file named "zero" from the source "zero".
            source = f"./{given.input_data_file}"
        case _:
            raise InvalidArgumentError(f"{what} must set one of zero_data, random_data, input_data_file")
    return datatype, dims, source


def _check_size(datatype: DataType, shape: tuple[int, ...], what: str, max_bytes: int = _MAX_INPUT_BYTES) -> None:
    num_bytes = prod(shape) * (datatype.itemsize or 8)
    if num_bytes > max_bytes:
        raise InvalidArgumentError(f"{what} takes {num_bytes} bytes; a sample may take {max_bytes}")


def _zeros(datatype: DataType, shape: tuple[int, ...]) -> Array:
    if datatype is DataType.BYTES:
        return np.full(shape, b"", dtype=np.object_)
    return np.zeros(shape, dtype=datatype.dtype)


def _random(datatype: DataType, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    if datatype is DataType.BYTES:
        return np.full(shape, b"1", dtype=np.object_)
    if datatype.dtype.kind in "iub":
        values = random.integers(0, 2, size=shape)
        values[(..., slice(0, 1)) if shape else ()] = 1
        return values.astype(datatype.dtype)
    return np.asarray(random.standard_normal(shape)).astype(datatype.dtype)


def _read_raw(path: Path, datatype: DataType, shape: tuple[int, ...], what: str) -> Array:
    try:
        content = read_file(path, _MAX_INPUT_BYTES)
    except OSError as error:
        raise InvalidArgumentError(f"{what}: {path.name} cannot be read: {error.strerror or error}") from error
    num_elements = prod(shape)
    if datatype is DataType.BYTES:
        return _read_bytes(content, num_elements, f"{what}: {path.name}").reshape(shape)
    num_bytes = num_elements * datatype.itemsize
    if len(content) < num_bytes:
        raise InvalidArgumentError(
            f"{what}: warmup setting expects {num_bytes} bytes, but the data provided from {path.name} only has "
            f"{len(content)} bytes"
        )
    return np.frombuffer(content, dtype=datatype.dtype, count=num_elements).reshape(shape)


def _read_bytes(content: bytes, num_elements: int, what: str) -> Array:
    elements = np.empty(num_elements, dtype=np.object_)
    start = 0
    for index in range(num_elements):
        end = start + 4 + int.from_bytes(content[start : start + 4], "little")
        if start + 4 > len(content) or end > len(content):
            raise InvalidArgumentError(f"{what} ends within string {index} of {num_elements}")
        elements[index] = content[start + 4 : end]
        start = end
    return elements
