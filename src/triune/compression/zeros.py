"""Set the smallest weights to 0."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def pruned(weight: NDArray[Any], sparsity: float) -> NDArray[Any]:
    """Set the round(sparsity * size) weights of the smallest magnitude to 0. Of equal magnitudes, take the first."""
    count = round(sparsity * weight.size)
    result = weight.copy()
    flat = result.reshape(-1)
    flat[np.argsort(np.abs(flat), kind="stable")[:count]] = 0
    return result


def pruned_n_of_m(weight: NDArray[Any], n: int, m: int, axis: int) -> NDArray[Any]:
    """In each group of m weights along `axis`, keep the n of the largest magnitude, and set the others to 0.

    Where m does not divide the axis, the last group has fewer weights, and keeps n of them.
    """
    result = np.moveaxis(weight.copy(), axis, -1)
    for start in range(0, result.shape[-1], m):
        group = result[..., start : start + m]
        order = np.argsort(np.abs(group), axis=-1, kind="stable")
        np.put_along_axis(group, order[..., : max(group.shape[-1] - n, 0)], 0, axis=-1)
    return np.ascontiguousarray(np.moveaxis(result, -1, axis))
