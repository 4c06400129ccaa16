"""Gathers and scatters, and what happens for indices that are out of range.

Up to iOS 16 negative indices count from the end. From iOS 17 on they are out of range. An index out of range is an
error, with two exceptions for iOS 17 and later without `validate_indices`, where Core ML does not define the result:
here a scatter ignores such an index, and a gather counts a negative one from the end.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreml.interpreter.values import Family
from triune.coreml.mil import Array


def gather(x: Array, indices: Array, axis: Any, batch_dims: Any, validate_indices: Any) -> Array:
    """Take slices of x along an axis. The first `batch_dims` dimensions of x and of the indices are the same."""
    axis, batch_dims = int(axis) % x.ndim, int(batch_dims)
    places = _in_range(indices, x.shape[axis], validate_indices)
    if not batch_dims:
        return np.take(x, places, axis)
    out = [np.take(x[at], places[at], axis - batch_dims) for at in np.ndindex(*x.shape[:batch_dims])]
    return np.stack(out).reshape(*x.shape[:batch_dims], *out[0].shape)


def gather_along_axis(x: Array, indices: Array, axis: Any, validate_indices: Any) -> Array:
    """Take the elements of x at `indices` along an axis; the other dimensions of x and indices are the same."""
    axis = int(axis)
    return np.take_along_axis(x, _in_range(indices, x.shape[axis], validate_indices), axis)


def gather_nd(x: Array, indices: Array, batch_dims: Any, validate_indices: Any) -> Array:
    """Take slices of x; each index is a tuple along the last dimension of `indices`."""
    batch_dims = int(batch_dims)
    if not batch_dims:
        return x[_numpy_index(x, indices, validate_indices)]
    out = [x[at][_numpy_index(x[at], indices[at], validate_indices)] for at in np.ndindex(*x.shape[:batch_dims])]
    return np.stack(out).reshape(*x.shape[:batch_dims], *out[0].shape)


def scatter(data: Array, indices: Array, updates: Array, axis: Any, mode: str, validate_indices: Any) -> Array:
    """Return `data`, with slices along an axis updated."""
    axis = int(axis) % data.ndim
    places, is_kept = _written_indices(indices, data.shape[axis], validate_indices)
    # The updates have the dimensions of the indices from `axis` on. Move them to the front, where `_update` needs them.
    moved = np.moveaxis(updates, tuple(range(axis, axis + places.ndim)), tuple(range(places.ndim)))
    result = np.moveaxis(data.copy(), axis, 0)
    _update(result, places[is_kept], moved[is_kept], mode)
    return np.moveaxis(result, 0, axis)


def scatter_along_axis(
    data: Array, indices: Array, updates: Array, axis: Any, mode: str, validate_indices: Any
) -> Array:
    """Return `data`, with the elements at `indices` along an axis updated."""
    axis = int(axis) % data.ndim
    places = list(np.indices(indices.shape))
    places[axis], is_kept = _written_indices(indices, data.shape[axis], validate_indices)
    result = data.copy()
    _update(result, tuple(each[is_kept] for each in places), updates[is_kept], mode)
    return result


def scatter_nd(data: Array, indices: Array, updates: Array, mode: str, validate_indices: Any) -> Array:
    """Return `data`, with slices updated; each index is a tuple along the last dimension of `indices`."""
    result = data.copy()
    _require_depth(data, indices)
    found = [
        _written_indices(indices[..., axis], data.shape[axis], validate_indices) for axis in range(indices.shape[-1])
    ]
    is_kept = np.all([each for _, each in found], axis=0)
    _update(result, tuple(each[is_kept] for each, _ in found), updates[is_kept], mode)
    return result


# Use `ufunc.at`, which applies an update for every occurrence of an index: `result[index] += updates` would apply only
# one.
_MODES: Mapping[str, Callable[..., Any]] = {
    "add": np.add.at,
    "sub": np.subtract.at,
    "mul": np.multiply.at,
    "div": np.divide.at,
    "max": np.maximum.at,
    "min": np.minimum.at,
}


def _update(result: Array, index: Any, updates: Array, mode: str) -> None:
    if mode == "update":
        result[index] = updates
    elif mode in _MODES:
        _MODES[mode](result, index, updates)
    else:
        raise UnsupportedError(f"there is no mode '{mode}'; there are update, {', '.join(_MODES)}")


def _numpy_index(x: Array, indices: Array, validate_indices: Any) -> tuple[Array, ...]:
    """Convert tuples along the last dimension of `indices` to numpy's index into `x`: an array for each dimension that
    the tuples index.
    """
    _require_depth(x, indices)
    return tuple(_in_range(indices[..., axis], x.shape[axis], validate_indices) for axis in range(indices.shape[-1]))


def _require_depth(x: Array, indices: Array) -> None:
    if (depth := indices.shape[-1]) > x.ndim:
        raise InvalidArgumentError(f"indices of {depth} dimensions into a tensor of {x.ndim}")


def _written_indices(indices: Array, size: int, validate_indices: Any) -> tuple[Array, Array]:
    """The indices of a scatter, and a mask that is false for updates that are ignored."""
    if validate_indices is None or validate_indices:
        places = _in_range(indices, size, validate_indices)
        return places, np.ones(places.shape, np.bool_)
    places = indices.astype(np.int64)
    return places, (places >= 0) & (places < size)


def _in_range(indices: Array, size: int, validate_indices: Any) -> Array:
    """Return the indices, counted from the start; raise InvalidArgumentError if one is out of range.

    Negative indices are out of range if `validate_indices` is true; else they count from the end.
    """
    places = indices.astype(np.int64)
    outside = (places < (0 if validate_indices else -size)) | (places >= size)
    if np.any(outside):
        raise InvalidArgumentError(f"index {places[outside].flat[0]} into a dimension of {size}")
    return np.where(places < 0, places + size, places)


FAMILY: Family = {
    "gather": gather,
    "gather_along_axis": gather_along_axis,
    "gather_nd": gather_nd,
    "scatter": scatter,
    "scatter_along_axis": scatter_along_axis,
    "scatter_nd": scatter_nd,
}
