"""Operations that make, join, order and mark tensors."""

import math
from typing import Any

import numpy as np

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreml.interpreter.elementwise import cast
from triune.coreml.interpreter.values import Family
from triune.coreml.mil import Array


def argsort(x: Array, axis: Any, ascending: Any) -> Array:
    """The indices that sort x; of equals the first comes first."""
    axis = int(axis)
    if ascending:
        return np.argsort(x, axis=axis, kind="stable")
    # Sorted backwards and turned around, so that equals keep their order.
    last = x.shape[axis] - 1
    return last - np.flip(np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)


def topk(
    x: Array, k: Any, axis: Any, ascending: Any, sort: Any, return_indices: Any, output_indices_dtype: str | None
) -> tuple[Array, ...]:
    """The k largest (smallest if ascending) and their indices.

    They are sorted; where `sort` is false any order is right.

    Raises:
        InvalidArgumentError: k is larger than the dimension; -1 is all of it.
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
    """X in a band of the last two axes, else 0; a negative bound is no bound."""
    row, column = np.indices(x.shape[-2:])
    inside = ((lower < 0) | (row - column <= lower)) & ((upper < 0) | (column - row <= upper))
    return np.where(inside, x, np.zeros_like(x))


def concat(values: tuple[Array, ...], axis: Any, interleave: Any) -> Array:
    """The tensors one after the other along an axis, or by turns if `interleave`."""
    axis = int(axis)
    if not interleave:
        return np.concatenate(values, axis)
    axis %= values[0].ndim
    shape = list(values[0].shape)
    shape[axis] *= len(values)
    return np.stack(values, axis + 1).reshape(shape)


def cumsum(x: Array, axis: Any, exclusive: Any, reverse: Any) -> Array:
    """The sums up to each element, without it if `exclusive`, from the end if `reverse`."""
    axis = int(axis)
    ordered = np.flip(x, axis) if reverse else x
    sums = np.cumsum(ordered, axis, dtype=x.dtype)
    if exclusive:
        sums = sums - ordered
    return np.flip(sums, axis) if reverse else sums


def fill(shape: Array, value: Any) -> Array:
    """A tensor of one value."""
    return np.full([int(size) for size in np.atleast_1d(shape)], value, _dtype_of(value))


def fill_like(ref_tensor: Array, value: Any) -> Array:
    """A tensor of one value, in the shape of another."""
    return np.full(ref_tensor.shape, value, _dtype_of(value))


def flatten2d(x: Array, axis: Any) -> Array:
    """Two dimensions: those before `axis`, and the others."""
    axis = int(axis)
    return x.reshape(int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:])))


def non_zero(x: Array) -> Array:
    """The indices of what is not 0: (count, rank)."""
    return np.argwhere(x)


def one_hot(indices: Array, one_hot_vector_size: Any, axis: Any, on_value: Any, off_value: Any) -> Array:
    """`on_value` at the index along a new axis, else `off_value`; an index out of range is nowhere."""
    axis = int(axis) % (indices.ndim + 1)
    places = np.arange(int(one_hot_vector_size)).reshape(-1, *(1,) * (indices.ndim - axis))
    return np.where(
        np.expand_dims(indices, axis) == places,
        np.asarray(on_value, _dtype_of(on_value)),
        np.asarray(off_value, _dtype_of(on_value)),
    )


def pad(x: Array, pad: Array, mode: str, constant_val: Any) -> Array:
    """X with elements before and after the last dimensions; `pad` has a pair for each.

    Raises:
        UnsupportedError: an unknown mode.
        InvalidArgumentError: an odd number of values, or more than dimensions.
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
    """The numbers from `start` by `step` up to `end`, without it."""
    if step == 0:
        raise InvalidArgumentError("a range with a step of 0")
    first, last, by = (each.item() for each in (start, end, step))
    count = max(0, math.ceil((last - first) / by))
    return np.array([first + by * at for at in range(count)], start.dtype)


def shape(x: Array) -> Array:
    """The sizes."""
    return np.array(x.shape, np.int32)


def split(x: Array, num_splits: Any, split_sizes: Array | None, axis: Any) -> tuple[Array, ...]:
    """Pieces along an axis: of equal size, or of the given sizes."""
    axis = int(axis)
    if split_sizes is None:
        return tuple(np.split(x, int(num_splits), axis))
    if int(np.sum(split_sizes)) != x.shape[axis]:
        raise InvalidArgumentError(f"pieces of {split_sizes.tolist()} of a dimension of {x.shape[axis]}")
    return tuple(np.split(x, np.cumsum(split_sizes)[:-1], axis))


def stack(values: tuple[Array, ...], axis: Any) -> Array:
    """The tensors along a new axis."""
    return np.stack(values, int(axis))


def tile(x: Array, reps: Array) -> Array:
    """X repeated along each axis."""
    return np.tile(x, [int(each) for each in reps])


def classify(probabilities: Array, classes: tuple[Array, ...]) -> tuple[Array, Array]:
    """The label of the largest probability, and all of them as a vector.

    Raises:
        InvalidArgumentError: there are more or fewer probabilities than classes.
    """
    scores = probabilities.ravel()
    if scores.size != len(classes):
        raise InvalidArgumentError(f"{scores.size} probabilities for {len(classes)} classes")
    return np.asarray(classes[int(np.argmax(scores))]), scores


def _dtype_of(value: Any) -> np.dtype[Any]:
    """The type of a parameter's value; a default's float stands for fp32."""
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
