"""Cases: elementwise operations, activations, reductions."""

from collections.abc import Callable
from typing import Any

import numpy as np

from contract.coreml.cases import Case, binary, inferred, known, op, uniform
from support.mil_programs import mb
from triune.coreml.mil import Array

X = uniform(2, 3, 4)
POSITIVE = uniform(2, 3, 4, low=0.1, high=3)
IMAGE = uniform(1, 2, 5, 6)
NUMBERS = np.array([[7, -7, 5], [-5, 3, 1]], np.int32)
DIVISORS = np.array([[2, 2, -3]], np.int32)
PER_CHANNEL = np.array([0.1, 0.2], np.float32)

_UNARY = (
    "abs atan ceil cos cosh erf exp exp2 floor identity relu relu6 round sigmoid sign sin sinh softmax softplus "
    "softsign square tan tanh"
)
_COMPARISONS = "equal not_equal less less_equal greater greater_equal"
_REDUCTIONS = "l1_norm l2_norm log_sum log_sum_exp max mean min prod sum sum_square"
_ALPHA_BETA = {
    "clamped_relu": (0.3, 1.2),
    "clip": (-0.5, 0.7),
    "linear_activation": (0.3, 1.2),
    "scaled_tanh": (0.3, 1.2),
    "sigmoid_hard": (0.3, 0.4),
}


def _truth(name: str, build: Callable[[Any], Any], **inputs: Array) -> Case:
    """A case with a truth value, which models have no outputs of: it comes out as int32."""
    return inferred(name, lambda v: mb.cast(x=build(v), dtype="int32"), **inputs)


def _logical(name: str) -> Case:
    return _truth(name, lambda v: getattr(mb, name)(x=mb.greater(x=v.x, y=0.0), y=mb.less(x=v.x, y=1.0)), x=X)


CASES = [
    *(inferred(name, op(name), x=X) for name in _UNARY.split()),
    *(inferred(name, op(name), x=X / 3) for name in ("acos", "asin", "atanh")),
    *(inferred(name, op(name), x=POSITIVE) for name in ("inverse", "log", "rsqrt", "sqrt")),
    *(inferred(name, op(name, epsilon=np.float32(0.5)), x=POSITIVE) for name in ("inverse", "log", "rsqrt")),
    *(
        inferred(name, binary(name), x=X, y=POSITIVE[:1])
        for name in ["add", "sub", "mul", "real_div", "maximum", "minimum"]
    ),
    *(inferred(name, binary(name), x=X, y=POSITIVE[:1] - 1) for name in ("mod", "floor_div")),
    *(_truth(name, binary(name), x=X, y=X[:, ::-1].copy()) for name in _COMPARISONS.split()),
    *(inferred(name, binary(name), x=NUMBERS, y=DIVISORS) for name in ["add", "mul", "mod", "floor_div", "maximum"]),
    *(_logical(name) for name in ("logical_and", "logical_or", "logical_xor")),
    *(inferred(name, op(name, alpha=np.float32(a), beta=np.float32(b)), x=X) for name, (a, b) in _ALPHA_BETA.items()),
    *(inferred(name, op(name, alpha=np.float32(0.4)), x=X) for name in ("elu", "leaky_relu", "threshold")),
    *(inferred("gelu", op("gelu", mode=f"{mode}_APPROXIMATION"), x=X) for mode in ("TANH", "SIGMOID")),
    inferred("gelu", op("gelu"), x=X),
    inferred("pow", binary("pow"), x=POSITIVE, y=X),
    known("real_div of integers", binary("real_div"), [[3, -3, -1], [-2, 1, 0]], x=NUMBERS, y=DIVISORS),
    known("pow of integers", binary("pow"), [[49, 49, 0], [25, 9, 1]], x=NUMBERS, y=DIVISORS),
    known("exp2 of integers", op("exp2"), [[128, 0, 32], [0, 8, 2]], x=NUMBERS),
    inferred("cast to int32", op("cast", dtype="int32"), x=X),
    known(
        "cast to bool",
        lambda v: mb.cast(x=mb.cast(x=v.x, dtype="bool"), dtype="fp32"),
        [0, 1, 1],
        x=np.array([0, 0.5, -2], np.float32),
    ),
    inferred("select", lambda v: mb.select(cond=mb.greater(x=v.x, y=0.0), a=v.x, b=v.y), x=X, y=POSITIVE),
    known("silu", op("silu"), X / (1 + np.exp(-X)), x=X),
    known("thresholded_relu", op("thresholded_relu", alpha=np.float32(0.4)), np.where(X >= 0.4, X, 0), x=X),
    _truth("logical_not", lambda v: mb.logical_not(x=mb.greater(x=v.x, y=0.0)), x=X),
    inferred("prelu", op("prelu", alpha=PER_CHANNEL), x=IMAGE),
    inferred("softplus_parametric", op("softplus_parametric", alpha=PER_CHANNEL, beta=PER_CHANNEL * -9), x=IMAGE),
    *(
        inferred(f"reduce_{name}", op(f"reduce_{name}", axes=[0, -1], keep_dims=keep), x=POSITIVE)
        for name in _REDUCTIONS.split()
        for keep in (True, False)
    ),
    known("reduce_sum of all", op("reduce_sum"), np.sum(X), x=X),
    known("reduce_argmax", op("reduce_argmax", axis=1), np.argmax(X, 1), x=X),
    known(
        "reduce_argmin of equals",
        op("reduce_argmin", axis=-1, keep_dims=True),
        [[[1], [0]]],
        x=np.array([[[3, 1, 1], [0, 0, 5]]], np.float32),
    ),
]
