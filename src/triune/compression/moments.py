"""Statistics of a product's inputs on samples. GPTQ, AWQ and SmoothQuant use them to tell which rounding errors matter
most.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_MOST_BYTES: Final = 1 << 30
"""The most bytes that moments take at once. If they take more in all, the samples are read several times."""


@dataclass(frozen=True, slots=True)
class Site:
    """Products that multiply the same value with weights.

    Attributes:
        value: the name of the value in the graph.
        width: the number of its channels.
        weights: the names of the weights.
    """

    value: str
    width: int
    weights: tuple[str, ...]


def held_at_once(sites: Sequence[Site]) -> Iterator[list[Site]]:
    """Yield groups of sites, at least one site each. The moments of a group fit into the memory limit `_MOST_BYTES`."""
    left = list(sites)
    while left:
        part: list[Site] = []
        size = 0
        while left and (not part or size + 4 * left[0].width ** 2 <= _MOST_BYTES):
            size += 4 * left[0].width ** 2
            part.append(left.pop(0))
        yield part


class Moments:
    """Sums over the rows x of a product's inputs, for a matrix [out, in] that they are multiplied with.

    Attributes:
        count: how many rows were added.
        second: fp32 [in, in], the sum of x x^T. An error dW of the matrix changes the outputs by dW x, the sum of whose
            squares is trace(dW second dW^T).
        sizes: fp64 [in], the sum of |x|.
        low: fp32 [in], the smallest value of each channel; 0 if all are larger.
        high: fp32 [in], the largest value of each channel; 0 if all are smaller.
    """

    def __init__(self, width: int) -> None:
        """`width`: the number of channels of the product's input."""
        self.count = 0
        self.second: NDArray[np.float32] = np.zeros((width, width), np.float32)
        self.sizes: NDArray[np.float64] = np.zeros(width, np.float64)
        self.low: NDArray[np.float32] = np.zeros(width, np.float32)
        self.high: NDArray[np.float32] = np.zeros(width, np.float32)

    def add(self, rows: NDArray[Any]) -> None:
        """Add the rows of an input [..., in] to all sums."""
        flat = rows.reshape(-1, rows.shape[-1]).astype(np.float32, copy=False)
        if not len(flat):
            return
        self.count += len(flat)
        # Sums beyond fp32 become infinite, which needs no warning: no method uses infinite statistics.
        with np.errstate(over="ignore", invalid="ignore"):
            self.second += flat.T @ flat
        self.sizes += np.abs(flat).sum(axis=0, dtype=np.float64)
        self.low = np.minimum(self.low, flat.min(axis=0))
        self.high = np.maximum(self.high, flat.max(axis=0))

    def error(self, difference: NDArray[Any]) -> float:
        """The sum of the squares by which outputs change for a difference [out, in] of the matrix."""
        with np.errstate(over="ignore", invalid="ignore"):
            return float(np.vdot(difference @ self.second, difference))

    def divided(self, scales: NDArray[np.float32]) -> "Moments":
        """The moments of the inputs divided by `scales` [in]."""
        other = Moments(len(scales))
        other.count = self.count
        other.second = self.second / scales / scales[:, np.newaxis]
        other.sizes = self.sizes / scales
        other.low, other.high = self.low / scales, self.high / scales
        return other

    def padded(self, width: int) -> "Moments":
        """The moments of the inputs, with channels of zeros added at the end up to `width` channels."""
        more = width - len(self.sizes)
        if not more:
            return self
        other = Moments(width)
        other.count = self.count
        other.second = np.pad(self.second, ((0, more), (0, more)))
        other.sizes = np.pad(self.sizes, (0, more))
        other.low, other.high = np.pad(self.low, (0, more)), np.pad(self.high, (0, more))
        return other
