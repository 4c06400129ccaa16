"""Translate the config's inputs and outputs, and check them against the model file."""

from collections.abc import Mapping, Sequence
from math import prod

from triune.config.datatypes import from_config
from triune.config.model_config import TensorConfig
from triune.core.errors import InvalidArgumentError
from triune.core.tensors import Signature, TensorSpec, format_shape
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.protos.model_config_pb2 import ModelInput, ModelOutput


def translate_tensors(
    message: ModelConfigMessage, signature: Signature, labels: Mapping[str, tuple[str, ...]]
) -> tuple[dict[str, TensorConfig], dict[str, TensorConfig]]:
    """The inputs and outputs of a completed config, by name, in order.

    Args:
        message: the completed config.
        signature: the model file's signature.
        labels: the labels by output name.

    Raises:
        InvalidArgumentError: a tensor is malformed, or contradicts the model file; the message gives the expected and
            the actual value.
    """
    model = f"model '{message.name}'"
    if not message.output:
        raise InvalidArgumentError(f"{model}: the model file has no outputs; is it the right file?")
    _refuse_repeats([each.name for each in message.input], f"{model}: input")
    _refuse_repeats([each.name for each in message.output], f"{model}: output")
    by_name = {spec.name: spec for spec in (*signature.inputs, *signature.outputs)}
    inputs = {
        each.name: _translate(each, f"{model}: model input", signature.inputs, message.max_batch_size)
        for each in message.input
    }
    outputs = {
        each.name: _translate(
            each, f"{model}: model output", signature.outputs, message.max_batch_size, labels.get(each.name, ())
        )
        for each in message.output
    }
    missing = [spec for spec in signature.inputs if not spec.is_optional and spec.name not in inputs]
    if missing:
        num_required = sum(not spec.is_optional for spec in signature.inputs)
        raise InvalidArgumentError(
            f"unable to load {model}, configuration expects {len(inputs)} inputs, model provides {num_required}; "
            f"add {', '.join(map(str, missing))}"
        )
    for name, tensor in inputs.items():
        _compare(tensor, by_name[name], model, message.max_batch_size, is_input=True)
    for name, tensor in outputs.items():
        _compare(tensor, by_name[name], model, message.max_batch_size, is_input=False)
    return inputs, outputs


def _translate(
    tensor: ModelInput | ModelOutput,
    kind: str,
    specs: Sequence[TensorSpec],
    max_batch_size: int,
    labels: tuple[str, ...] = (),
) -> TensorConfig:
    if not tensor.name:
        raise InvalidArgumentError(f"{kind} must specify 'name'")
    what = f"{kind} '{tensor.name}'"
    spec = next((each for each in specs if each.name == tensor.name), None)
    if spec is None:
        raise InvalidArgumentError(
            f"{what} is not in the model file, which has {', '.join(each.name for each in specs) or 'none'}"
        )
    datatype = from_config(tensor.data_type, what)
    if tensor.is_shape_tensor or tensor.is_non_linear_format_io:
        raise InvalidArgumentError(
            f"{what}: shape tensors and non-linear formats are only supported for TensorRT platform"
        )
    if isinstance(tensor, ModelInput) and tensor.format != ModelInput.FORMAT_NONE and len(tensor.dims) != 3:
        raise InvalidArgumentError(f"{what}: NHWC/NCHW require 3 dims, found {format_shape(tensor.dims)}")
    dims = tuple(tensor.dims)
    if not dims:
        raise InvalidArgumentError(f"{what} must specify 'dims'")
    if any(dim < 1 and dim != -1 for dim in dims):
        raise InvalidArgumentError(
            f"{what} has dims {format_shape(dims)}: a dimension must be integer >= 1, or -1 to indicate a "
            "variable-size dimension"
        )
    reshape: tuple[int, ...] | None = None
    if tensor.HasField("reshape"):
        reshape = tuple(tensor.reshape.shape)
        _check_reshape(dims, reshape, what)
    elif max_batch_size == 0 and spec.has_rank and not spec.shape and all(dim == 1 for dim in dims):
        # For a scalar without a batch dimension the config has dims [1], as in Triton: reshape the client's tensor to
        # the model's scalar.
        reshape = ()
    is_optional = isinstance(tensor, ModelInput) and tensor.optional
    return TensorConfig(tensor.name, datatype, dims, None if reshape == dims else reshape, is_optional, labels)


def _check_reshape(dims: Sequence[int], reshape: Sequence[int], what: str) -> None:
    # An empty reshape is allowed without a batch dimension, unlike in Triton: the runtimes take scalars.
    if any(dim < 1 and dim != -1 for dim in reshape):
        raise InvalidArgumentError(
            f"{what} has reshape {format_shape(reshape)}: reshape dimensions must be integer >= 1, or -1"
        )
    # The fixed dimensions between free ones must have the same product in `dims` and `reshape`: [2,4,-1,6] fits
    # [8,-1,1,6].
    if _runs(dims) != _runs(reshape):
        raise InvalidArgumentError(
            f"{what} has different size for dims {format_shape(dims)} and reshape {format_shape(reshape)}"
        )


def _runs(shape: Sequence[int]) -> list[int]:
    runs: list[list[int]] = [[]]
    for dim in shape:
        if dim == -1:
            runs.append([])
        else:
            runs[-1].append(dim)
    return [prod(run) for run in runs]


def _compare(tensor: TensorConfig, spec: TensorSpec, model: str, max_batch_size: int, *, is_input: bool) -> None:
    kind = "input" if is_input else "output"
    if tensor.datatype is not spec.datatype:
        raise InvalidArgumentError(
            f"unable to load {model}, configuration expects datatype {tensor.datatype.value} for {kind} "
            f"'{tensor.name}', model provides {spec.datatype.value}"
        )
    dims = tensor.dims if tensor.reshape is None else tensor.reshape
    if not spec.has_rank or (not is_input and not spec.shape):
        # If the file declares no rank for the output, or a scalar, there is nothing to compare the config's dims with.
        return
    if max_batch_size > 0 and (not spec.shape or spec.shape[0] != -1):
        raise InvalidArgumentError(
            f"{model}, tensor '{tensor.name}': for the model to support batching the shape should have at least 1 "
            "dimension and the first dimension must be -1; but shape expected by the model is "
            f"{format_shape(spec.shape)}; set max_batch_size to 0"
        )
    full = (-1, *dims) if max_batch_size > 0 else dims
    fits = len(full) == len(spec.shape) and all(
        # Where the file has a free dimension, the config may have any size. Where the file has a size, the config must
        # have the same; for an output it may also have a free dimension.
        theirs in (-1, ours) or (not is_input and ours == -1)
        for ours, theirs in zip(full, spec.shape, strict=True)
    )
    if not fits:
        batch = "an initial batch dimension because max_batch_size > 0 followed by " if max_batch_size > 0 else ""
        raise InvalidArgumentError(
            f"{model}, tensor '{tensor.name}': the model expects {len(spec.shape)} dimensions (shape "
            f"{format_shape(spec.shape)}) but the model configuration specifies {len(full)} dimensions ({batch}"
            f"shape {format_shape(full)})"
        )


def _refuse_repeats(names: Sequence[str], what: str) -> None:
    seen = set[str]()
    for name in names:
        if name in seen:
            raise InvalidArgumentError(f"{what} '{name}' is given twice; name each tensor once")
        seen.add(name)
