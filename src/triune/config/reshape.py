"""The config's `reshape`: converts between the shape for clients and the model's shape."""

from collections.abc import Sequence

from triune.config.model_config import TensorConfig
from triune.core.datatypes import Array
from triune.core.errors import InternalError
from triune.core.tensors import format_shape


def reshape_to_model(array: Array, tensor: TensorConfig, *, has_batch: bool) -> Array:
    """Return a view of an input in the model's shape.

    `array` has the shape `dims`, after a batch dimension if `has_batch`.
    """
    return _reshape(array, tensor.dims, tensor.reshape, has_batch)


def reshape_to_client(array: Array, tensor: TensorConfig, *, has_batch: bool) -> Array:
    """Return a view of an output in the shape that the config states. `array` has the model's shape.

    Raises:
        InternalError: the model's output does not match the config.
    """
    # A model file may declare an output without a rank. Triune reads it as a scalar of shape (), and the config's
    # reshape is written for that scalar. If the model then gives an array of another rank, the reshape is skipped.
    if tensor.reshape is None or (not tensor.reshape and not has_batch and array.ndim):
        return array
    try:
        return _reshape(array, tensor.reshape, tensor.dims, has_batch)
    except ValueError as error:
        raise InternalError(
            f"the model gave output '{tensor.name}' the shape {format_shape(array.shape)}, which does not fit the "
            f"config's reshape {format_shape(tensor.reshape)} to dims {format_shape(tensor.dims)}"
        ) from error


def _reshape(array: Array, source: Sequence[int], target: Sequence[int] | None, has_batch: bool) -> Array:
    """Reshape. The n-th free dimension (-1) of `target` gets the size of the n-th one of `source` (Triton's rule)."""
    if target is None:
        return array
    row = array.shape[1:] if has_batch else array.shape
    free = iter(size for size, dim in zip(row, source, strict=True) if dim == -1)
    sizes = [next(free) if dim == -1 else dim for dim in target]
    return array.reshape([array.shape[0], *sizes] if has_batch else sizes)
