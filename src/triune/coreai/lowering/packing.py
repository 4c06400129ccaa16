"""Lossless compression of weights in Core AI's forms: look-up tables and sparse bitmasks."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune.coreai.library import Value, ops
from triune.coreai.lowering.values import constant, small_constant

SMALLEST_BYTES = 1 << 14
"""The size in bytes of the smallest weights that are packed."""

_INDEX_BITS = (1, 2, 4, 8)
_NUM_LOOKED_AT = 1 << 12
_MOST_FILLED = 0.7
"""The largest share of nonzero elements for which a bitmask saves space: it costs one bit for each element."""


def packed(weight: NDArray[Any]) -> Value | None:
    """Write a weight as a look-up table of at most 256 values, or as its nonzero elements with a bitmask.

    Returns:
        the value that the program unpacks, which equals `weight` exactly; None if neither form is smaller.
    """
    if weight.dtype.kind != "f" or weight.nbytes < SMALLEST_BYTES or weight.ndim == 0:
        return None
    table = _table(weight)
    if table is not None:
        return _looked_up(weight, table)
    bits = _bits(weight)
    is_filled = bits != 0
    share = float(np.count_nonzero(is_filled)) / weight.size
    return _masked(weight, is_filled) if 0 < share <= _MOST_FILLED else None


def _bits(weight: NDArray[Any]) -> NDArray[Any]:
    """The bits of each element as an unsigned integer, by which -0 differs from 0, and NaN equals NaN."""
    return weight.view(f"u{weight.itemsize}")


def _table(weight: NDArray[Any]) -> NDArray[Any] | None:
    """The distinct elements, sorted by their bits; None if there are more than 256."""
    flat = _bits(np.ascontiguousarray(weight)).reshape(-1)
    if len(np.unique(flat[:: max(1, flat.size // _NUM_LOOKED_AT)])) > 1 << _INDEX_BITS[-1]:
        return None
    different = np.unique(flat)
    return different if len(different) <= 1 << _INDEX_BITS[-1] else None


def _looked_up(weight: NDArray[Any], table: NDArray[Any]) -> Value:
    bits = next(each for each in _INDEX_BITS if len(table) <= 1 << each)
    indices = np.searchsorted(table, _bits(np.ascontiguousarray(weight)))
    entries = np.zeros(1 << bits, table.dtype)
    entries[: len(table)] = table
    # One table serves the whole weight. Its last two dimensions are the entries, and the elements of an entry.
    lut = entries.view(weight.dtype).reshape(*[1] * weight.ndim, -1, 1)
    places = constant(indices.astype(np.uint8)) if bits == 8 else small_constant(indices, bits)
    return ops.lut_to_dense(places, constant(lut), constant(np.int16(0)))


def _masked(weight: NDArray[Any], is_filled: NDArray[np.bool_]) -> Value:
    sparse = ops.build_sparse_with_bitmask(constant(weight[is_filled]), small_constant(is_filled, 1))
    return ops.sparse_with_bitmask_to_dense(sparse)
