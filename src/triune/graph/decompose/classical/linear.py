"""Decompose LinearRegressor and LinearClassifier."""

import numpy as np

from triune.graph.conversion.problems import Refusal
from triune.graph.decompose.classical.features import rows_of
from triune.graph.decompose.classical.scores import both_classes, give_label, num_classes, post_transformed, probit
from triune.graph.decompose.context import Context, Decomposition


def _products(c: Context, count: int) -> str | None:
    """Build x @ coefficients.T + intercepts, (N, count); None if the rank of x is not known."""
    rows, b = rows_of(c), c.build
    if rows is None:
        return None
    coefficients = np.array(c.attributes["coefficients"], np.float32).reshape(count, -1)
    product = b.op("MatMul", rows[0], b.constant(coefficients.T.copy()))
    intercepts = c.attributes.get("intercepts")
    return b.op("Add", product, b.constant(intercepts, np.float32)) if intercepts else product


def linear_regressor(c: Context) -> bool:
    """LinearRegressor: X @ coefficients.T + intercepts, then the post transform."""
    count, transform = c.attributes.get("targets", 1), c.attributes.get("post_transform", "NONE")
    product = _products(c, count)
    if product is None:
        return False
    if count == 1:
        # For one target, apply no other post transform than PROBIT, as ONNX Runtime does.
        c.give(probit(c, product) if transform == "PROBIT" else product)
    else:
        c.give(post_transformed(c, product, transform))
    return True


def linear_classifier(c: Context) -> bool:
    """LinearClassifier: the result is the class with the largest score X @ coefficients.T + intercepts. If there is
    only one score, it is the second class where the score is above 0, else the first.
    """
    b, transform = c.build, c.attributes.get("post_transform", "NONE")
    count = len(c.attributes.get("intercepts", []))
    if not count:
        raise Refusal("it has no intercepts, from which the number of its scores is read; write zeros")
    product = _products(c, count)
    if product is None:
        return False
    if count > 1:
        c.give(post_transformed(c, product, transform), 1)
        give_label(c, b.op("ArgMax", product, axis=-1, keepdims=0))
        return True
    is_pair = num_classes(c) == 2
    if is_pair and transform == "PROBIT":
        raise Refusal("ONNX Runtime computes one score of the two, and leaves the other as it finds it")
    if is_pair:
        c.give(both_classes(c, product, transform, is_probability=True), 1)
    else:
        c.give(probit(c, product) if transform == "PROBIT" else product, 1)
    is_second = b.cast(b.op("Greater", product, b.constant(0, np.float32)), 7)
    give_label(c, b.op("Squeeze", is_second, b.ints(1)), None if is_pair else [0, 1])
    return True


TABLE: dict[str, Decomposition] = {"LinearClassifier": linear_classifier, "LinearRegressor": linear_regressor}
