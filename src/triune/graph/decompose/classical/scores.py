"""Post transforms of the scores of classifiers and regressors (ONNX Runtime's ml_common.h), and class labels."""

import numpy as np
from onnx import TensorProto

from triune.graph.conversion.problems import Refusal
from triune.graph.decompose.classical.labels import TEXT
from triune.graph.decompose.context import Context

_LABELS = ("classlabels_ints", "classlabels_int64s", "classlabels_strings")

_TINY = 1e-7
"""SOFTMAX_ZERO leaves scores of at most this magnitude out of the sum that it divides by."""


def post_transformed(c: Context, scores: str, transform: str) -> str:
    """Apply a post transform to the scores (N, C) of two or more classes or targets."""
    match transform:
        case "SOFTMAX":
            return c.build.op("Softmax", scores, axis=-1)
        case "LOGISTIC":
            return c.build.op("Sigmoid", scores)
        case "SOFTMAX_ZERO":
            return _softmax_zero(c, scores)
        case "PROBIT":
            return probit(c, scores)
        case "NONE":
            return scores
        case other:
            raise Refusal(f"there is no post transform '{other}'")


def _softmax_zero(c: Context, scores: str) -> str:
    """SOFTMAX_ZERO: e / sum(e), where e is exp(x - max(x)), but 0 where x is 0."""
    b = c.build
    largest = b.op("ReduceMax", scores, b.ints(-1), keepdims=1)
    counts = b.op("Greater", b.op("Abs", scores), b.constant(_TINY, np.float32))
    powers = b.op("Exp", b.op("Sub", scores, largest))
    total = b.op("ReduceSum", b.op("Mul", powers, b.cast(counts, TensorProto.FLOAT)), b.ints(-1), keepdims=1)
    zeros = b.op("Mul", scores, b.op("Exp", b.op("Neg", largest)))
    return b.op("Div", b.op("Where", counts, powers, zeros), total)


def probit(c: Context, p: str) -> str:
    """PROBIT: the quantile of the normal distribution, sqrt(2) * erfinv(2 * p - 1), by Winitzki's approximation of
    erfinv.

    erfinv(x) is sign(x) * sqrt(sqrt(v^2 - l / a) - v), with a = 0.147, l = log(1 - x^2) and
    v = 2 / (3.14159 * a) + l / 2.
    """
    b = c.build

    def number(value: float) -> str:
        return b.constant(value, np.float32)

    x = b.op("Sub", b.op("Mul", p, number(2)), number(1))
    log = b.op("Log", b.op("Mul", b.op("Sub", number(1), x), b.op("Add", number(1), x)))
    v = b.op("Add", number(2 / (3.14159 * 0.147)), b.op("Mul", log, number(0.5)))
    root = b.op("Sqrt", b.op("Sub", b.op("Mul", v, v), b.op("Div", log, number(0.147))))
    size = b.op("Sqrt", b.op("Sub", root, v))
    signed = b.op("Where", b.op("Less", x, number(0)), b.op("Neg", size), size)
    return b.op("Mul", signed, number(1.41421356))


def both_classes(c: Context, score: str, transform: str, *, is_probability: bool) -> str:
    """Build the scores (N, 2) of both classes of a binary classifier that has the score (N, 1) of the second.

    The score of the first class is sigmoid(-score) if `transform` is LOGISTIC, else 1 - score if `is_probability`, else
    -score.
    """
    b = c.build
    if transform == "LOGISTIC":
        parts = [b.op("Sigmoid", each) for each in (b.op("Neg", score), score)]
    elif is_probability:
        parts = [b.op("Sub", b.constant(1, np.float32), score), score]
    else:
        parts = [b.op("Neg", score), score]
    return b.op("Concat", *parts, axis=1)


def num_classes(c: Context) -> int:
    """The number of class labels of a classifier."""
    return max(len(c.attributes.get(name, [])) for name in _LABELS)


def give_label(c: Context, position: str, numbers: list[int] | None = None) -> None:
    """If output 0 is read, write it as the class labels at the indices `position` (N), from `numbers` or the node's
    attribute.

    Raises:
        Refusal: the labels are strings, and output 0 is read.
    """
    if not c.is_read(0):
        return
    if c.attributes.get("classlabels_strings"):
        raise Refusal(TEXT)
    own: list[int] = c.attributes.get("classlabels_ints") or c.attributes.get("classlabels_int64s") or []
    c.give(c.build.op("Gather", c.build.constant(numbers or own, np.int64), position))
