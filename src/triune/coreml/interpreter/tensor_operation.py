"""Operations that create, concatenate, split, sort and fill tensors."""

import math
from typing import Any

import numpy as np

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreml.interpreter.elementwise import cast
from triune.coreml.interpreter.values import Family
from triune.coreml.mil import Array


def argsort(x: Array, axis: Any, ascending: Any) -> Array:
    """The indices that sort x; equal elements keep their order."""
    axis = int(axis)
    if ascending:
        return np.argsort(x, axis=axis, kind="stable")
    # For descending order, sort the reversed tensor and reverse the result, so that equal elements keep their order.
    last = x.shape[axis] - 1
    return last - np.flip(np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)


def topk(
    x: Array, k: Any, axis: Any, ascending: Any, sort: Any, return_indices: Any, output_indices_dtype: str | None
) -> tuple[Array, ...]:
    """The k largest elements (smallest, if `ascending`) along an axis, and their indices; k = -1 means all.

    They are sorted, though without `sort` any order would be correct.

    Raises:
        InvalidArgumentError: k is larger than the dimension.
    """
    axis, k = int(axis), int(k)
    size = x.shape[axis]
    k = size if k == -1 else k
    if not 0 <= k <= size:
        raise InvalidArgumentError(f"the {k} largest of {size}")
    indices = argsort(x, axis, ascending)[(slice(None),) * (axis % x.ndim) + (slice(k),)]
    values = np.take_along_axis(x, indices, axis)
    return (values, cast(indices, output_indices_dtype or "int32")) if return_indices else (values,)


def band_part(x: Array, lower: Any, upper: Any) -> Array:
    """Keep `lower` diagonals below the main one and `upper` above it; the rest is 0. A negative number keeps all
    diagonals on its side.
    """
    row, column = np.indices(x.shape[-2:])
    inside = ((lower < 0) | (row - column <= lower)) & ((upper < 0) | (column - row <= upper))
    return np.where(inside, x, np.zeros_like(x))


def concat(values: tuple[Array, ...], axis: Any, interleave: Any) -> Array:
    """Concatenate tensors along an axis. With `interleave` the first slices of all tensors come first, then their
    second slices, and so on.
    """
    axis = int(axis)
    if not interleave:
        return np.concatenate(values, axis)
    axis %= values[0].ndim
    shape = list(values[0].shape)
    shape[axis] *= len(values)
    return np.stack(values, axis + 1).reshape(shape)


def cumsum(x: Array, axis: Any, exclusive: Any, reverse: Any) -> Array:
    """Compute the running sum along an axis: up to and including each element, or excluding it if `exclusive`; from the
    end if `reverse`.
    """
    axis = int(axis)
    ordered = np.flip(x, axis) if reverse else x
    sums = np.cumsum(ordered, axis, dtype=x.dtype)
    if exclusive:
        sums = sums - ordered
    return np.flip(sums, axis) if reverse else sums


def fill(shape: Array, value: Any) -> Array:
    """Make a tensor with `value` in all elements."""
    return np.full([int(size) for size in np.atleast_1d(shape)], value, _dtype_of(value))


def fill_like(ref_tensor: Array, value: Any) -> Array:
    """Make a tensor of the shape of `ref_tensor`, with `value` in all elements."""
    return np.full(ref_tensor.shape, value, _dtype_of(value))


def flatten2d(x: Array, axis: Any) -> Array:
    """Reshape to two dimensions: the product of those before `axis`, and of the others."""
    axis = int(axis)
    return x.reshape(int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:])))


def non_zero(x: Array) -> Array:
    """The indices of all elements that are not 0: (count, rank)."""
    return np.argwhere(x)


def one_hot(indices: Array, one_hot_vector_size: Any, axis: Any, on_value: Any, off_value: Any) -> Array:
    """Make `on_value` where the position along the new axis equals the index, else `off_value`.

    An index out of range gives only `off_value`.
    """
    axis = int(axis) % (indices.ndim + 1)
    places = np.arange(int(one_hot_vector_size)).reshape(-1, *(1,) * (indices.ndim - axis))
    return np.where(
        np.expand_dims(indices, axis) == places,
        np.asarray(on_value, _dtype_of(on_value)),
        np.asarray(off_value, _dtype_of(on_value)),
    )


def pad(x: Array, pad: Array, mode: str, constant_val: Any) -> Array:
    """Add elements before and after the last dimensions; `pad` has a pair (before, after) for each.

    Raises:
        UnsupportedError: the mode is not known.
        InvalidArgumentError: `pad` has an odd number of values, or more pairs than x has dimensions.
    """
    if pad.size % 2 or pad.size > 2 * x.ndim:
        raise InvalidArgumentError(f"{pad.size} values of padding for {x.ndim} dimensions")
    pairs = [(int(before), int(after)) for before, after in pad.reshape(-1, 2)]
    widths = [(0, 0)] * (x.ndim - len(pairs)) + pairs
    match mode:
        case "constant":
            return np.pad(x, widths, constant_values=np.asarray(constant_val).astype(x.dtype))
        case "reflect":
            return np.pad(x, widths, mode="reflect")
        case "replicate":
            return np.pad(x, widths, mode="edge")
        case _:
            raise UnsupportedError(f"there is no padding '{mode}'")


def range_1d(end: Array, start: Array, step: Array) -> Array:
    """The numbers from `start` to before `end`, by `step`."""
    if step == 0:
        raise InvalidArgumentError("a range with a step of 0")
    first, last, by = (each.item() for each in (start, end, step))
    count = max(0, math.ceil((last - first) / by))
    return np.array([first + by * at for at in range(count)], start.dtype)


def shape(x: Array) -> Array:
    """The sizes of all dimensions of x."""
    return np.array(x.shape, np.int32)


def split(x: Array, num_splits: Any, split_sizes: Array | None, axis: Any) -> tuple[Array, ...]:
    """Split x along an axis into parts of equal size, or of the given sizes."""
    axis = int(axis)
    if split_sizes is None:
        return tuple(np.split(x, int(num_splits), axis))
    if int(np.sum(split_sizes)) != x.shape[axis]:
        raise InvalidArgumentError(f"pieces of {split_sizes.tolist()} of a dimension of {x.shape[axis]}")
    return tuple(np.split(x, np.cumsum(split_sizes)[:-1], axis))


def stack(values: tuple[Array, ...], axis: Any) -> Array:
    """Stack tensors along a new axis."""
    return np.stack(values, int(axis))


def tile(x: Array, reps: Array) -> Array:
    """Repeat x along each axis."""
    return np.tile(x, [int(each) for each in reps])


def classify(probabilities: Array, classes: tuple[Array, ...]) -> tuple[Array, Array]:
    """Return the label of the largest probability, and all probabilities as a vector.

    Raises:
        InvalidArgumentError: there are more or fewer probabilities than classes.
    """
    scores = probabilities.ravel()
    if scores.size != len(classes):
        raise InvalidArgumentError(f"{scores.size} probabilities for {len(classes)} classes")
    return np.asarray(classes[int(np.argmax(scores))]), scores


def _dtype_of(value: Any) -> np.dtype[Any]:
    """The element type of a parameter's value; a Python float, which is a default, counts as fp32."""
    array: Array = np.asarray(value)
    if isinstance(value, np.ndarray):
        return array.dtype
    return np.dtype({"f": np.float32, "b": np.bool_}.get(array.dtype.kind, np.int32))


FAMILY: Family = {
    "argsort": argsort,
    "band_part": band_part,
    "classify": classify,
    "concat": concat,
    "cumsum": cumsum,
    "fill": fill,
    "fill_like": fill_like,
    "flatten2d": flatten2d,
    "non_zero": non_zero,
    "one_hot": one_hot,
    "pad": pad,
    "range_1d": range_1d,
    "shape": shape,
    "split": split,
    "stack": stack,
    "tile": tile,
    "topk": topk,
}
