"""Palettes: weights as indices into a table of few values, found by k-means."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_ROUNDS = 100


@dataclass(frozen=True, slots=True, eq=False)
class Palettes:
    """Weights in palettes.

    Attributes:
        indices: uint8, of the weight's shape.
        tables: [palettes, 2^bits], of the weight's type.
        rows: the number of output channels that share a palette.
        axis: the axis of output channels.
    """

    indices: NDArray[np.uint8]
    tables: NDArray[Any]
    rows: int
    axis: int

    @property
    def starts(self) -> NDArray[np.int32] | None:
        """The offset of each output channel's palette in the concatenated tables, to be added to the indices; None if
        there is one table.
        """
        if len(self.tables) == 1:
            return None
        size = self.indices.shape[self.axis]
        form = [-1 if each == self.axis else 1 for each in range(self.indices.ndim)]
        return (np.arange(size, dtype=np.int32) // self.rows * self.tables.shape[1]).reshape(form)

    def whole(self) -> NDArray[Any]:
        """The weights that the palettes represent."""
        starts = 0 if self.starts is None else self.starts
        return self.tables.reshape(-1)[self.indices.astype(np.int32) + starts]


def palettized(weight: NDArray[Any], bits: int, *, axis: int = 0, rows: int | None = None) -> Palettes:
    """Replace each weight by the nearest value of its palette.

    Args:
        weight: an array of fp32 or fp16, without NaN and infinities.
        bits: the bits of an index, 1 to 8.
        axis: the axis of output channels.
        rows: how many output channels share a palette (the last group may have fewer channels); None lets all channels
            share one.
    """
    size = int(weight.shape[axis])
    rows = min(size if rows is None else rows, size)
    lines = np.moveaxis(weight, axis, 0)
    indices = np.empty(lines.shape, np.uint8)
    tables = np.empty((-(-size // rows), 1 << bits), weight.dtype)
    for number, begin in enumerate(range(0, size, rows)):
        part = lines[begin : begin + rows].astype(np.float32)
        centers = k_means(part.reshape(-1), 1 << bits).astype(weight.dtype)
        tables[number] = centers
        wide = centers.astype(np.float32)
        indices[begin : begin + rows] = np.searchsorted((wide[1:] + wide[:-1]) / 2, part)
    return Palettes(np.ascontiguousarray(np.moveaxis(indices, 0, axis)), tables, rows, axis)


def k_means(values: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """`count` centers in ascending order, for which the sum of the squared distances from each value to its nearest
    center is small.

    Lloyd's algorithm (1982) in one dimension, from evenly spaced quantiles: the same values give the same centers. If
    there are at most `count` distinct values, they are the centers.
    """
    ordered = np.sort(values.astype(np.float64))
    distinct = ordered[np.insert(np.diff(ordered) > 0, 0, True)]
    if len(distinct) <= count:
        return np.concatenate([distinct, np.full(count - len(distinct), distinct[-1])]).astype(np.float32)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    places = (np.arange(count) + 0.5) / count
    centers = np.unique(ordered[(places * len(ordered)).astype(np.int64)])
    if len(centers) < count:
        # With many equal values some quantiles coincide: take further centers from the distinct values.
        spread = distinct[np.linspace(0, len(distinct) - 1, count).astype(np.int64)]
        centers = np.unique(np.concatenate([centers, spread]))
        centers = centers[np.linspace(0, len(centers) - 1, count).astype(np.int64)]
    for _ in range(_MOST_ROUNDS):
        ends = np.searchsorted(ordered, (centers[1:] + centers[:-1]) / 2, side="right")
        ends = np.concatenate([[0], ends, [len(ordered)]])
        sizes = np.diff(ends)
        means = (sums[ends[1:]] - sums[ends[:-1]]) / np.maximum(sizes, 1)
        moved = np.sort(np.where(sizes > 0, means, centers))
        if np.array_equal(moved, centers):
            break
        centers = moved
    return centers.astype(np.float32)
