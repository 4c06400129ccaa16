"""Check a request against the config of its model. Each request is checked once, here."""

from collections.abc import Iterable

from triune.config.model_config import ModelConfig, TensorConfig
from triune.config.reshape import reshape_to_model
from triune.core.datatypes import Array, DataType
from triune.core.errors import InvalidArgumentError
from triune.core.requests import InferenceRequest
from triune.core.tensors import format_shape


def check(request: InferenceRequest, config: ModelConfig) -> tuple[dict[str, Array], int]:
    """Check a request's names, datatypes and shapes against its model's config.

    Returns:
        the inputs reshaped to the model's shapes (views), and the batch size: 1 for a model without a batch dimension.

    Raises:
        InvalidArgumentError: the request does not match; the message gives the expected and the actual value.
    """
    given = request.inputs
    if given.keys() != config.inputs.keys():
        _check_names(request, config)
    max_batch_size = config.batching.max_batch_size
    inputs: dict[str, Array] = {}
    batch_size = 0
    for name, array in given.items():
        expected = config.inputs[name]
        if array.dtype is not expected.datatype.dtype and array.dtype != expected.datatype.dtype:
            raise InvalidArgumentError(
                f"inference input '{name}' data-type is '{DataType.of(array).value}', but model '{config.name}' "
                f"expects '{expected.datatype.value}'"
            )
        shape = array.shape
        if not _fits(shape, expected.dims, has_batch=max_batch_size > 0):
            raise InvalidArgumentError(
                f"unexpected shape for input '{name}' for model '{config.name}'. "
                f"Expected {_format_expected(expected, max_batch_size)}, got {format_shape(shape)}"
            )
        if max_batch_size:
            rows = shape[0]
            if batch_size and rows != batch_size:
                raise InvalidArgumentError(
                    f"input '{name}' batch size does not match other inputs for '{config.name}': it is {rows}, but an "
                    f"earlier input of the same request has {batch_size}; give all inputs the same first dimension"
                )
            if not 1 <= rows <= max_batch_size:
                bound = f"<= {max_batch_size}" if rows else ">= 1"
                raise InvalidArgumentError(
                    f"inference request batch-size must be {bound} for '{config.name}', but input '{name}' has "
                    f"{rows} rows{'; split the request' if rows else ''}"
                )
            batch_size = rows
        inputs[name] = (
            array if expected.reshape is None else reshape_to_model(array, expected, has_batch=max_batch_size > 0)
        )
    if request.outputs:
        _check_outputs(request, config)
    return inputs, batch_size or 1


def _fits(shape: tuple[int, ...], dims: tuple[int, ...], *, has_batch: bool) -> bool:
    row = shape[1:] if has_batch else shape
    if len(row) != len(dims) or (has_batch and not shape):
        return False
    return row == dims or all(size == dim or dim == -1 for size, dim in zip(row, dims, strict=True))


def _format_expected(expected: TensorConfig, max_batch_size: int) -> str:
    if not max_batch_size:
        return format_shape(expected.dims)
    return f"{format_shape((-1, *expected.dims))} (a batch of 1 to {max_batch_size} rows)"


def _check_names(request: InferenceRequest, config: ModelConfig) -> None:
    num_given, num_known = len(request.inputs), len(config.inputs)
    num_required = sum(not each.is_optional for each in config.inputs.values())
    unknown = [name for name in request.inputs if name not in config.inputs]
    if unknown and num_required <= num_given <= num_known:
        raise InvalidArgumentError(
            f"unexpected inference input '{unknown[0]}' for model '{config.name}'; its inputs are "
            f"{', '.join(config.inputs) or 'none'}"
        )
    missing = [name for name, each in config.inputs.items() if name not in request.inputs and not each.is_optional]
    if missing or unknown:
        range_ = f"number of inputs between {num_required} and {num_known}"
        wanted = f"{num_known} inputs" if num_required == num_known else range_
        raise InvalidArgumentError(
            f"expected {wanted} but got {num_given} inputs for model '{config.name}'. Got input(s) "
            f"{_quoted(request.inputs)}, but missing required input(s) {_quoted(missing)}. Please provide all "
            f"required input(s). Its inputs are {_quoted(config.inputs)}"
        )


def _quoted(names: Iterable[str]) -> str:
    return "[" + ",".join(f"'{name}'" for name in names) + "]"


def _check_outputs(request: InferenceRequest, config: ModelConfig) -> None:
    seen: set[str] = set()
    for output in request.outputs:
        if output.name not in config.outputs:
            raise InvalidArgumentError(
                f"unexpected inference output '{output.name}' for model '{config.name}'; its outputs are "
                f"{', '.join(config.outputs)}"
            )
        if output.name in seen:
            raise InvalidArgumentError(f"output '{output.name}' already exists in request; name each output once")
        seen.add(output.name)
        if output.num_classes < 0:
            raise InvalidArgumentError(
                f"classification of output '{output.name}' is {output.num_classes}, must be positive"
            )
