"""Lossless compression of weights in Core AI's forms: look-up tables, one or several, and sparse bitmasks."""

from dataclasses import dataclass
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
"""The largest share of a weight's bytes that a compressed form may take. Also the largest share of nonzero elements for
a bitmask, which takes a bit for each element.
"""


def packed(weight: NDArray[Any]) -> Value | None:
    """Write a weight as look-up tables of at most 256 values, one for all or for each group of channels, or as its
    nonzero elements with a bitmask, whichever is smallest.

    Returns:
        the value that the program unpacks, which equals `weight` exactly; None if no form is smaller.
    """
    if weight.dtype.kind != "f" or weight.nbytes < SMALLEST_BYTES or weight.ndim == 0:
        return None
    is_filled = _bits(weight) != 0
    share = float(np.count_nonzero(is_filled)) / weight.size
    masked_bytes = share * weight.nbytes + weight.size / 8 if 0 < share <= _MOST_FILLED else weight.nbytes
    tables = _tables(weight)
    if tables is not None and tables.num_bytes <= min(_MOST_FILLED * weight.nbytes, masked_bytes):
        return _looked_up(tables)
    return _masked(weight, is_filled) if masked_bytes < weight.nbytes else None


@dataclass(frozen=True, slots=True, eq=False)
class _Tables:
    """Indices of the shape of a weight, and look-up tables [groups along each axis..., entries, 1]."""

    indices: NDArray[np.uint8]
    lut: NDArray[Any]

    @property
    def bits(self) -> int:
        """The number of bits of an index."""
        return int(self.lut.shape[-2]).bit_length() - 1

    @property
    def num_bytes(self) -> int:
        """The total size of indices and tables in bytes."""
        return self.indices.size * self.bits // 8 + self.lut.nbytes


def _bits(weight: NDArray[Any]) -> NDArray[Any]:
    """The bits of each element as an unsigned integer. Compared as bits, -0 differs from 0, and NaN equals NaN."""
    return weight.view(f"u{weight.itemsize}")


def _tables(weight: NDArray[Any]) -> _Tables | None:
    """The smallest palette of a weight: one table, or one for each group of neighbouring channels along the last or the
    first axis. None if every such table would have more than 256 values.
    """
    best: _Tables | None = None
    for axis in dict.fromkeys((weight.ndim - 1, 0)):
        rows = np.ascontiguousarray(np.moveaxis(_bits(weight), axis, 0)).reshape(weight.shape[axis], -1)
        for group in _divisors(len(rows)):
            found = _indices(rows.reshape(len(rows) // group, -1))
            if found is None:
                # Stop here: larger groups have at least as many values, so they do not fit into a table, either.
                break
            indices, entries = found
            shape = [weight.shape[axis], *(each for at, each in enumerate(weight.shape) if at != axis)]
            lut_shape = [len(entries) if at == axis else 1 for at in range(weight.ndim)]
            lut = entries.view(weight.dtype).reshape(*lut_shape, -1, 1)
            tables = _Tables(np.moveaxis(indices.reshape(shape), 0, axis), lut)
            if best is None or tables.num_bytes < best.num_bytes:
                best = tables
    return best


def _looked_up(tables: _Tables) -> Value:
    indices = np.ascontiguousarray(tables.indices)
    places = constant(indices) if tables.bits == 8 else small_constant(indices, tables.bits)
    return ops.lut_to_dense(places, constant(tables.lut), constant(np.int16(0)))


def _divisors(count: int) -> list[int]:
    return [each for each in range(1, count + 1) if count % each == 0]


def _bits_for(count: int) -> int | None:
    return next((each for each in _INDEX_BITS if count <= 1 << each), None)


def _indices(groups: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[Any]] | None:
    """The index of each element of `groups` in the table of its row, and these tables: [rows, entries]. None if a row
    has more than 256 values.
    """
    first = groups[0]
    if _bits_for(len(np.unique(first[:: max(1, first.size // _NUM_LOOKED_AT)]))) is None:
        return None
    tables = [np.unique(each) for each in groups]
    bits = _bits_for(max(map(len, tables)))
    if bits is None:
        return None
    entries = np.zeros((len(tables), 1 << bits), groups.dtype)
    indices = np.empty(groups.shape, np.uint8)
    for place, (table, row) in enumerate(zip(tables, groups, strict=True)):
        entries[place, : len(table)] = table
        indices[place] = np.searchsorted(table, row)
    return indices, entries


def _masked(weight: NDArray[Any], is_filled: NDArray[np.bool_]) -> Value:
    sparse = ops.build_sparse_with_bitmask(constant(weight[is_filled]), small_constant(is_filled, 1))
    return ops.sparse_with_bitmask_to_dense(sparse)
