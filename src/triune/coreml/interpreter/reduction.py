"""Reductions over axes. Results for integers are integers: means and roots are rounded toward zero. The result of
reducing no elements is the neutral element of the operation.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from triune.coreml.interpreter.elementwise import cast
from triune.coreml.interpreter.values import Compute, Family
from triune.coreml.mil import Array

_Axes: TypeAlias = tuple[int, ...]


def _l1_norm(x: Array, axis: _Axes, keepdims: bool) -> Array:
    return np.sum(np.abs(x), axis=axis, keepdims=keepdims)


def _sum_square(x: Array, axis: _Axes, keepdims: bool) -> Array:
    return np.sum(np.square(x), axis=axis, keepdims=keepdims)


def _l2_norm(x: Array, axis: _Axes, keepdims: bool) -> Array:
    return np.sqrt(_sum_square(x, axis, keepdims))


def _largest(x: Array, axis: _Axes, keepdims: bool) -> Array:
    lowest = False if x.dtype == np.bool_ else -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    return np.max(x, axis=axis, keepdims=keepdims, initial=lowest)


def _smallest(x: Array, axis: _Axes, keepdims: bool) -> Array:
    highest = True if x.dtype == np.bool_ else np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).max
    return np.min(x, axis=axis, keepdims=keepdims, initial=highest)


def _mean(x: Array, axis: _Axes, keepdims: bool) -> Array:
    # As in ONNX Runtime, the mean of no elements is 0.
    return np.mean(x, axis=axis, keepdims=keepdims) if x.size else np.sum(x, axis=axis, keepdims=keepdims)


def _log_sum(x: Array, axis: _Axes, keepdims: bool) -> Array:
    return np.log(np.sum(x, axis=axis, keepdims=keepdims))


def _log_sum_exp(x: Array, axis: _Axes, keepdims: bool) -> Array:
    # Subtract the largest value first, so that no power overflows.
    largest = _largest(x, axis, True)
    largest = np.where(np.isfinite(largest), largest, 0)
    logs = np.log(np.sum(np.exp(x - largest), axis=axis, keepdims=True)) + largest
    return logs if keepdims else np.squeeze(logs, axis)


def _reduction(function: Callable[..., Any]) -> Compute:
    def compute(x: Array, axes: Array | None, keep_dims: Any) -> Array:
        axis = tuple(range(x.ndim)) if axes is None else tuple(int(each) for each in np.atleast_1d(axes))
        return np.asarray(function(x, axis=axis, keepdims=bool(keep_dims))).astype(x.dtype)

    return compute


def _index_of(function: Callable[..., Any]) -> Compute:
    def compute(x: Array, axis: Any, keep_dims: Any, output_dtype: str) -> Array:
        indices = np.asarray(function(x, axis=int(axis), keepdims=bool(keep_dims)))
        return cast(indices, output_dtype)

    return compute


FAMILY: Family = {
    # If several elements are equal, the index of the first is the result.
    "reduce_argmax": _index_of(np.argmax),
    "reduce_argmin": _index_of(np.argmin),
    "reduce_l1_norm": _reduction(_l1_norm),
    "reduce_l2_norm": _reduction(_l2_norm),
    "reduce_log_sum": _reduction(_log_sum),
    "reduce_log_sum_exp": _reduction(_log_sum_exp),
    "reduce_max": _reduction(_largest),
    "reduce_mean": _reduction(_mean),
    "reduce_min": _reduction(_smallest),
    "reduce_prod": _reduction(np.prod),
    "reduce_sum": _reduction(np.sum),
    "reduce_sum_square": _reduction(_sum_square),
}
