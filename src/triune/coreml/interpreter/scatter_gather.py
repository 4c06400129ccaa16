"""Gather and scatter, and what becomes of indices that are out of range.

To iOS 16 negative indices count from the end. From iOS 17 on they are out of range: with `validate_indices` they are
errors; without, Core ML leaves open what happens, and here a scatter ignores such an index, and a gather treats it as
before iOS 17. An index beyond the end is an error in all others.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreml.interpreter.values import Family
from triune.coreml.mil import Array


def gather(x: Array, indices: Array, axis: Any, batch_dims: Any, validate_indices: Any) -> Array:
    """Slices of x along an axis; the first `batch_dims` dimensions of x and indices go together."""
    axis, batch_dims = int(axis) % x.ndim, int(batch_dims)
    places = _in_range(indices, x.shape[axis], validate_indices)
    if not batch_dims:
        return np.take(x, places, axis)
    out = [np.take(x[at], places[at], axis - batch_dims) for at in np.ndindex(*x.shape[:batch_dims])]
    return np.stack(out).reshape(*x.shape[:batch_dims], *out[0].shape)


def gather_along_axis(x: Array, indices: Array, axis: Any, validate_indices: Any) -> Array:
    """The elements of x at `indices` along an axis; x and indices have the same other dimensions."""
    axis = int(axis)
    return np.take_along_axis(x, _in_range(indices, x.shape[axis], validate_indices), axis)


def gather_nd(x: Array, indices: Array, batch_dims: Any, validate_indices: Any) -> Array:
    """Slices of x at the indices in the last dimension of `indices`."""
    batch_dims = int(batch_dims)
    if not batch_dims:
        return x[_points(x, indices, validate_indices)]
    out = [x[at][_points(x[at], indices[at], validate_indices)] for at in np.ndindex(*x.shape[:batch_dims])]
    return np.stack(out).reshape(*x.shape[:batch_dims], *out[0].shape)


def scatter(data: Array, indices: Array, updates: Array, axis: Any, mode: str, validate_indices: Any) -> Array:
    """Data with slices along an axis updated."""
    axis = int(axis) % data.ndim
    places, is_kept = _places(indices, data.shape[axis], validate_indices)
    # The indices' dimensions to the front of the updates, where they are in the result's index.
    moved = np.moveaxis(updates, tuple(range(axis, axis + places.ndim)), tuple(range(places.ndim)))
    result = np.moveaxis(data.copy(), axis, 0)
    _update(result, places[is_kept], moved[is_kept], mode)
    return np.moveaxis(result, 0, axis)


def scatter_along_axis(
    data: Array, indices: Array, updates: Array, axis: Any, mode: str, validate_indices: Any
) -> Array:
    """Data with the elements at `indices` along an axis updated."""
    axis = int(axis) % data.ndim
    places = list(np.indices(indices.shape))
    places[axis], is_kept = _places(indices, data.shape[axis], validate_indices)
    result = data.copy()
    _update(result, tuple(each[is_kept] for each in places), updates[is_kept], mode)
    return result


def scatter_nd(data: Array, indices: Array, updates: Array, mode: str, validate_indices: Any) -> Array:
    """Data with the slices at the indices in the last dimension of `indices` updated."""
    result = data.copy()
    _require_depth(data, indices)
    found = [_places(indices[..., axis], data.shape[axis], validate_indices) for axis in range(indices.shape[-1])]
    is_kept = np.all([each for _, each in found], axis=0)
    _update(result, tuple(each[is_kept] for each, _ in found), updates[is_kept], mode)
    return result


# `ufunc.at` counts an index that appears twice twice.
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


def _points(x: Array, indices: Array, validate_indices: Any) -> tuple[Array, ...]:
    """The numpy index into x: one array of indices for each of its first dimensions."""
    _require_depth(x, indices)
    return tuple(_in_range(indices[..., axis], x.shape[axis], validate_indices) for axis in range(indices.shape[-1]))


def _require_depth(x: Array, indices: Array) -> None:
    if (depth := indices.shape[-1]) > x.ndim:
        raise InvalidArgumentError(f"indices of {depth} dimensions into a tensor of {x.ndim}")


def _places(indices: Array, size: int, validate_indices: Any) -> tuple[Array, Array]:
    """The indices at which a scatter writes, and a mask of the updates that it keeps."""
    if validate_indices is None or validate_indices:
        places = _in_range(indices, size, validate_indices)
        return places, np.ones(places.shape, np.bool_)
    places = indices.astype(np.int64)
    return places, (places >= 0) & (places < size)


def _in_range(indices: Array, size: int, validate_indices: Any) -> Array:
    """Check indices. Negative ones count from the end unless `validate_indices` is true."""
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
