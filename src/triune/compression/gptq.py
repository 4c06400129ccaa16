"""GPTQ: the weights of a matrix are rounded one column after another, and the remaining columns are changed to
compensate for the errors.

Frantar et al., 2023 (arXiv:2210.17323), whose steps these are: with H the second moments of the inputs and U the upper
Cholesky factor of its inverse (U^T U = H^-1), column i is rounded to q, and each later column j becomes
w_j - (w_i - q) / U_ii * U_ij. Columns are taken in the order of falling H_ii ("act_order" in the authors' code). The
scales of groups are computed before any weight is changed ("static_groups"), so that groups keep neighbouring columns.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from triune.compression.integers import quantized
from triune.compression.moments import Moments
from triune.graph.packed import Packed

_DAMPING: Final = 0.01
"""The fraction of the mean of H's diagonal that is added to the diagonal, as in GPTQ's paper: H, the second moments of
the inputs, may have no inverse.
"""
_MOST_DAMPING: Final = 100.0
_AT_ONCE: Final = 128
"""The number of columns in a block. The columns after a block are changed only once, for the errors of all of the
block's columns: the paper's lazy batches.
"""


def gptq(
    weight: NDArray[Any],
    moments: Moments,
    bits: int,
    group: int | None,
    *,
    is_symmetric: bool,
    scale_type: type[np.floating[Any]] | None = None,
) -> Packed:
    """Quantize a matrix [out, in] so that its products with inputs like those of the samples change little.

    Args:
        weight: a matrix of fp32 or fp16; the scales have its type.
        moments: the moments of the inputs.
        bits: 4 or 8.
        group: how many weights of a row share a scale, a divisor of `in`; None if a whole row does.
        is_symmetric: whether there are no zero points.
        scale_type: the type of the scales; None means the type of the weights.

    Returns:
        integers in the form of `integers.quantized`. The whole matrix is rounded to the nearest levels if there are no
            samples, or if that gives smaller errors on them.
    """
    size = weight.shape[1]
    nearest = quantized(
        weight, bits, axis=None, block_axis=1, block=group or size, is_symmetric=is_symmetric, scale_type=scale_type
    )
    most = (1 << (bits - 1)) - 1 if is_symmetric else (1 << bits) - 1
    scales = nearest.scale.astype(np.float32)
    zeros = np.zeros_like(scales) if nearest.zero_point is None else nearest.zero_point.astype(np.float32)
    levels = rounded(weight.astype(np.float32), scales, zeros, moments, (-most if is_symmetric else 0, most))
    if levels is None:
        return nearest
    found = Packed(nearest.elem_type, levels.astype(nearest.data.dtype), nearest.scale, nearest.zero_point)
    return found if moments.error(found.whole() - weight) <= moments.error(nearest.whole() - weight) else nearest


def rounded(
    weight: NDArray[np.float32],
    scales: NDArray[np.float32],
    zeros: NDArray[np.float32],
    moments: Moments,
    limits: tuple[int, int],
) -> NDArray[np.float32] | None:
    """The levels [out, in], whole numbers, of weights `scale * (level - zero)`; None if there are no samples, or H, the
    second moments of their inputs, is not finite or has no inverse.

    Args:
        weight: [out, in].
        scales: [out, in / group].
        zeros: the zero points, in the same shape; they need not be integers.
        moments: the moments of the inputs.
        limits: the lowest and the highest level.
    """
    second = moments.second
    if not moments.count or not np.isfinite(second).all():
        return None
    order = np.argsort(-np.diag(second), kind="stable")
    factor = _factor(second[np.ix_(order, order)].astype(np.float64))
    if factor is None:
        return None
    size = weight.shape[1]
    places = order // (size // scales.shape[1])
    # Each row here is a column of the matrix, so that weights that are read and changed together are adjacent in
    # memory.
    left = np.ascontiguousarray(weight.T[order])
    scales, zeros = scales.T[places], zeros.T[places]
    levels = np.empty_like(left)
    for begin in range(0, size, _AT_ONCE):
        end = min(begin + _AT_ONCE, size)
        errors = np.empty_like(left[begin:end])
        for at in range(begin, end):
            level = np.clip(np.rint(left[at] / scales[at] + zeros[at]), *limits)
            levels[at] = level
            error = (left[at] - (level - zeros[at]) * scales[at]) / factor[at, at]
            errors[at - begin] = error
            left[at + 1 : end] -= factor[at, at + 1 : end, np.newaxis] * error
        left[end:] -= factor[begin:end, end:].T @ errors
    result = np.empty_like(weight)
    result[:, order] = levels.T
    return result


def _factor(second: NDArray[np.float64]) -> NDArray[np.float32] | None:
    """The upper Cholesky factor U of the inverse of H. H's diagonal is increased (damped) until H has an inverse; None
    if it has none even when 100 times (`_MOST_DAMPING`) the mean of the diagonal is added.

    Args:
        second: H, the second moments of the inputs.
    """
    diagonal = np.diag(second)
    mean = float(diagonal.mean())
    if not mean > 0:
        return None
    # For an input that is always 0, H has a row of zeros. Set its diagonal, so that H has an inverse: the input's
    # weights are then rounded to the nearest level.
    whole = second + np.diag(np.where(diagonal == 0, mean, 0))
    damping = _DAMPING
    while damping <= _MOST_DAMPING:
        try:
            inverse = np.linalg.inv(whole + damping * mean * np.eye(len(whole)))
            return np.linalg.cholesky((inverse + inverse.T) / 2).T.astype(np.float32)
        except np.linalg.LinAlgError:
            damping *= 10
    return None
