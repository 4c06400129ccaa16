"""Set the smallest weights to 0."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune.core.errors import InvalidArgumentError


def pruned(weight: NDArray[Any], sparsity: float) -> NDArray[Any]:
    """Set the round(sparsity * size) weights of the smallest magnitude to 0; of equal ones those that come first."""
    count = round(sparsity * weight.size)
    result = weight.copy()
    flat = result.reshape(-1)
    flat[np.argsort(np.abs(flat), kind="stable")[:count]] = 0
    return result


def pruned_n_of_m(weight: NDArray[Any], n: int, m: int, axis: int) -> NDArray[Any]:
    """Of each m weights in a row along `axis`, keep the n of the largest magnitude, and set the others to 0.

    Raises:
        InvalidArgumentError: m does not divide the axis.
    """
    size = weight.shape[axis]
    if size % m:
        raise InvalidArgumentError(f"{size} input channels are not divided by the {m} of {n}:{m} (--n-m)")
    lines = np.moveaxis(weight, axis, -1)
    parts = lines.reshape(-1, m).copy()
    order = np.argsort(np.abs(parts), axis=1, kind="stable")
    np.put_along_axis(parts, order[:, : m - n], 0, axis=1)
    return np.ascontiguousarray(np.moveaxis(parts.reshape(lines.shape), -1, axis))
