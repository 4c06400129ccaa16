"""Gather and scatter. Negative indices count from the end; others out of range are errors, whatever `validate_indices`.

Core ML leaves indices out of range undefined unless `validate_indices`: a reference says so rather than guess.
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
    places = _in_range(indices, x.shape[axis])
    if not batch_dims:
        return np.take(x, places, axis)
    out = [np.take(x[at], places[at], axis - batch_dims) for at in np.ndindex(*x.shape[:batch_dims])]
    return np.stack(out).reshape(*x.shape[:batch_dims], *out[0].shape)


def gather_along_axis(x: Array, indices: Array, axis: Any, validate_indices: Any) -> Array:
    """The elements of x at `indices` along an axis; x and indices have the same other dimensions."""
    axis = int(axis)
    return np.take_along_axis(x, _in_range(indices, x.shape[axis]), axis)


def gather_nd(x: Array, indices: Array, batch_dims: Any, validate_indices: Any) -> Array:
    """Slices of x at the indices in the last dimension of `indices`."""
    batch_dims = int(batch_dims)
    if not batch_dims:
        return x[_points(x, indices)]
    out = [x[at][_points(x[at], indices[at])] for at in np.ndindex(*x.shape[:batch_dims])]
    return np.stack(out).reshape(*x.shape[:batch_dims], *out[0].shape)


def scatter(data: Array, indices: Array, updates: Array, axis: Any, mode: str, validate_indices: Any) -> Array:
    """Data with slices along an axis updated."""
    axis = int(axis) % data.ndim
    places = _in_range(indices, data.shape[axis])
    # The indices' dimensions to the front of the updates, where they are in the result's index.
    moved = np.moveaxis(updates, tuple(range(axis, axis + places.ndim)), tuple(range(places.ndim)))
    result = np.moveaxis(data.copy(), axis, 0)
    _update(result, places, moved, mode)
    return np.moveaxis(result, 0, axis)


def scatter_along_axis(
    data: Array, indices: Array, updates: Array, axis: Any, mode: str, validate_indices: Any
) -> Array:
    """Data with the elements at `indices` along an axis updated."""
    axis = int(axis) % data.ndim
    places = list(np.indices(indices.shape, sparse=True))
    places[axis] = _in_range(indices, data.shape[axis])
    result = data.copy()
    _update(result, tuple(places), updates, mode)
    return result


def scatter_nd(data: Array, indices: Array, updates: Array, mode: str, validate_indices: Any) -> Array:
    """Data with the slices at the indices in the last dimension of `indices` updated."""
    result = data.copy()
    _update(result, _points(data, indices), updates, mode)
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


def _points(x: Array, indices: Array) -> tuple[Array, ...]:
    """The index of x for `x[...]`: one array for each of its first dimensions."""
    depth = indices.shape[-1]
    if depth > x.ndim:
        raise InvalidArgumentError(f"indices of {depth} dimensions into a tensor of {x.ndim}")
    return tuple(_in_range(indices[..., axis], x.shape[axis]) for axis in range(depth))


def _in_range(indices: Array, size: int) -> Array:
    places = indices.astype(np.int64)
    outside = (places < -size) | (places >= size)
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
