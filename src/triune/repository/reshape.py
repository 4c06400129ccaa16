"""The config's `reshape`: the same elements in the shape that clients see, and in the shape that the model wants."""

from collections.abc import Sequence

from triune.core.datatypes import Array
from triune.repository.config import TensorConfig


def reshape_to_model(array: Array, tensor: TensorConfig, *, has_batch: bool) -> Array:
    """An input in the model's own shape: a view. `array` fits `tensor.dims`, batch dimension first if `has_batch`."""
    return _reshape(array, tensor.dims, tensor.reshape, has_batch)


def reshape_to_client(array: Array, tensor: TensorConfig, *, has_batch: bool) -> Array:
    """An output in the shape that the config promises. `array` has the model's own shape."""
    if tensor.reshape is None:
        return array
    return _reshape(array, tensor.reshape, tensor.dims, has_batch)


def _reshape(array: Array, source: Sequence[int], target: Sequence[int] | None, has_batch: bool) -> Array:
    """Free dimensions (-1) of `target` take, in order, the sizes of the free dimensions of `source` (Triton's rule)."""
    if target is None:
        return array
    row = array.shape[1:] if has_batch else array.shape
    free = iter(size for size, dim in zip(row, source, strict=True) if dim == -1)
    sizes = [next(free) if dim == -1 else dim for dim in target]
    return array.reshape([array.shape[0], *sizes] if has_batch else sizes)
