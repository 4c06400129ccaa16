"""SVMRegressor and SVMClassifier: support vector machines, computed as libsvm does."""

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from triune.graph.builder import Builder
from triune.graph.conversion.problems import Refusal
from triune.graph.decompose.classical.features import rows_of
from triune.graph.decompose.classical.scores import both_classes, give_label, num_classes, post_transformed
from triune.graph.decompose.context import Context, Decomposition

_ROUNDS = 8
"""The number of iterations for probabilities. ONNX Runtime allows 100, but none of 80,000 random rows of 2 to 8 classes
needed more than 4.
"""

_LEAST_PROBABILITY = 1e-7


def _floats(c: Context, name: str) -> NDArray[np.float32]:
    return np.array(c.attributes.get(name, []), np.float32)


def _kernel(c: Context, x: str, vectors: NDArray[Any]) -> str:
    """Build (N, vectors), the kernel k(x, v) of each row x and each support vector v."""
    b = c.build
    gamma, offset, degree = (_floats(c, "kernel_params").tolist() or [0.0, 0.0, 0.0])[:3]
    kind = c.attributes.get("kernel_type", "LINEAR")
    if kind == "RBF":
        # exp(-gamma * |x - v|^2) is computed from differences: |x|^2 + |v|^2 - 2 * x * v would be cheaper, but suffers
        # cancellation.
        difference = b.op("Sub", b.op("Unsqueeze", x, b.ints(1)), b.constant(vectors[None]))
        distance = b.op("ReduceSum", b.op("Mul", difference, difference), b.ints(2), keepdims=0)
        return b.op("Exp", b.op("Mul", distance, b.constant(-gamma, np.float32)))
    product = b.op("MatMul", x, b.constant(vectors.T.copy()))
    if kind == "LINEAR":
        return product
    product = b.op("Add", b.op("Mul", product, b.constant(gamma, np.float32)), b.constant(offset, np.float32))
    if kind == "SIGMOID":
        return b.op("Tanh", product)
    if kind != "POLY":
        raise Refusal(f"there is no kernel '{kind}'")
    if degree in (2, 3):
        square = b.op("Mul", product, product)
        return square if degree == 2 else b.op("Mul", square, product)
    return b.op("Pow", product, b.constant(degree, np.float32))


def svm_regressor(c: Context) -> bool:
    """SVMRegressor: the sum of coefficient_v * k(x, v) over the support vectors v, plus rho. k is the kernel.

    With `one_class` the result is 1 if that is above 0, else -1.
    """
    rows, b = rows_of(c), c.build
    if rows is None:
        return False
    count, weights = c.attributes.get("n_supports", 0), _floats(c, "coefficients")
    vectors = _floats(c, "support_vectors")
    kernel = _kernel(c, rows[0], vectors.reshape(count, -1)) if count else rows[0]
    result = b.op("Add", b.op("MatMul", kernel, b.constant(weights[:, None])), b.constant(_floats(c, "rho")[:1]))
    if c.attributes.get("one_class", 0):
        zero, one, minus = (b.constant(each, np.float32) for each in (0, 1, -1))
        result = b.op("Where", b.op("Greater", result, zero), one, minus)
    c.give(result)
    return True


def svm_classifier(c: Context) -> bool:
    """SVMClassifier: each pair of classes votes for one of the two. The results are the class with the most votes, and
    the scores.
    """
    rows, count = rows_of(c), num_classes(c)
    if rows is None:
        return False
    if count < 2:
        raise Refusal("it has fewer than two classes")
    sizes = c.attributes.get("vectors_per_class", [])
    (_by_vectors if sum(sizes) else _linear)(c, rows[0], count)
    return True


def _linear(c: Context, x: str, count: int) -> None:
    """Decompose an SVMClassifier without support vectors, as in liblinear: each class has a vector of weights."""
    b, weights = c.build, _floats(c, "coefficients").reshape(count, -1)
    scores = b.op("Add", b.op("MatMul", x, b.constant(weights.T.copy())), b.constant(_floats(c, "rho")[:1]))
    c.give(post_transformed(c, scores, c.attributes.get("post_transform", "NONE")), 1)
    position = b.op("ArgMax", scores, axis=-1, keepdims=0)
    if count == 2 and not c.attributes.get("prob_a"):
        # The second class is chosen if the larger score is at least 0.5 (above 0, if any coefficient is negative); else
        # the class of the larger score.
        largest = b.op("ReduceMax", scores, b.ints(1), keepdims=0)
        is_large = (
            b.op("GreaterOrEqual", largest, b.constant(0.5, np.float32))
            if (weights >= 0).all()
            else b.op("Greater", largest, b.constant(0, np.float32))
        )
        position = b.op("Where", is_large, b.constant(1, np.int64), position)
    give_label(c, position)


def _by_vectors(c: Context, x: str, count: int) -> None:
    b, transform = c.build, c.attributes.get("post_transform", "NONE")
    sizes = c.attributes["vectors_per_class"]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    coefficients = _floats(c, "coefficients")[: (count - 1) * starts[-1]].reshape(count - 1, -1)
    pairs = list(itertools.combinations(range(count), 2))
    # libsvm stores the coefficient of a vector of class i against class j in row j - 1 if j > i, else in row j.
    weights = np.zeros((int(starts[-1]), len(pairs)), np.float32)
    for position, (i, j) in enumerate(pairs):
        for own, row in ((i, j - 1), (j, i)):
            vectors = slice(starts[own], starts[own + 1])
            weights[vectors, position] = coefficients[row, vectors]
    kernel = _kernel(c, x, _floats(c, "support_vectors").reshape(int(starts[-1]), -1))
    rho = _floats(c, "rho")[: len(pairs)]
    scores = b.op("Add", b.op("MatMul", kernel, b.constant(weights)), b.constant(rho))
    # A pair votes for its first class if the score is above 0, else for its second.
    first, second = (np.eye(count, dtype=np.float32)[[pair[position] for pair in pairs]] for position in (0, 1))
    is_first = b.cast(b.op("Greater", scores, b.constant(0, np.float32)), TensorProto.FLOAT)
    votes = b.op("Add", b.op("MatMul", is_first, b.constant(first - second)), b.constant(second.sum(axis=0)))
    give_label(c, b.op("ArgMax", votes, axis=-1, keepdims=0))
    if c.attributes.get("prob_a"):
        c.give(post_transformed(c, _probabilities(c, scores, count, pairs), transform), 1)
    elif count > 2:
        c.give(post_transformed(c, scores, transform), 1)
    elif transform == "PROBIT":
        raise Refusal("ONNX Runtime computes one score of the two, and leaves the other as it finds it")
    else:
        c.give(both_classes(c, scores, transform, is_probability=transform != "NONE"), 1)


def _probabilities(c: Context, scores: str, count: int, pairs: list[tuple[int, int]]) -> str:
    """Build probabilities (N, classes) from those of pairs of classes (Wu, Lin and Weng, 2004, algorithm 2).

    r_ij is the probability of class i if only the classes i and j are possible. From the score s of this pair and the
    node's prob_a and prob_b, r_ij = 1 / (1 + exp(prob_a * s + prob_b)), and r_ji = 1 - r_ij. The result is the vector p
    of probabilities that minimizes p^T Q p, where Q_ii = sum_j r_ji^2 and Q_ij = -r_ji * r_ij.
    """
    b = c.build
    a, shift = (b.constant(_floats(c, f"prob_{name}")[: len(pairs)]) for name in "ab")
    pair = b.op("Sigmoid", b.op("Neg", b.op("Add", b.op("Mul", scores, a), shift)))
    pair = b.op(
        "Clip",
        pair,
        b.constant(_LEAST_PROBABILITY, np.float32),
        b.constant(1 - np.float32(_LEAST_PROBABILITY), np.float32),
    )
    other = b.op("Sub", b.constant(1, np.float32), pair)
    both = b.op("Concat", pair, other, b.op("Mul", pair, b.constant(0, np.float32)), axis=1)
    # r_ij is the probability of class i against class j. `both` has a column of r_ij for each pair (i, j), then the
    # columns of r_ji, then columns of zeros. `column[i, j]` is the index of the column of r_ij; for i = j, of zeros.
    column = np.full((count, count), 2 * len(pairs))
    for position, (i, j) in enumerate(pairs):
        column[i, j], column[j, i] = position, len(pairs) + position
    r = b.op("Reshape", b.op("Gather", both, b.constant(column.reshape(-1)), axis=1), b.ints(-1, count, count))
    transposed = b.op("Transpose", r, perm=[0, 2, 1])
    squares = b.op("ReduceSum", b.op("Mul", r, r), b.ints(1), keepdims=0)
    diagonal = b.op("Mul", b.op("Unsqueeze", squares, b.ints(2)), b.constant(np.eye(count, dtype=np.float32)))
    q = b.op("Sub", diagonal, b.op("Mul", r, transposed))
    p = b.op("Add", b.op("Mul", squares, b.constant(0, np.float32)), b.constant(1 / count, np.float32))
    for _ in range(_ROUNDS):
        p = _round(b, q, squares, p, count)
    return p


def _round(b: Builder, q: str, diagonal: str, given: str, count: int) -> str:
    """Build one iteration of the algorithm in `_probabilities`, which updates each class's probability in `given` (N,
    classes) in turn. A row that has converged does not change.
    """
    qp = b.op("Squeeze", b.op("MatMul", q, b.op("Unsqueeze", given, b.ints(2))), b.ints(2))
    pqp = b.op("ReduceSum", b.op("Mul", given, qp), b.ints(1), keepdims=1)
    error = b.op("ReduceMax", b.op("Abs", b.op("Sub", qp, pqp)), b.ints(1), keepdims=1)
    is_near = b.op("Less", error, b.constant(0.005 / count, np.float32))
    zero, one, p = b.constant(0, np.float32), b.constant(1, np.float32), given
    for position in range(count):
        own = b.op("Gather", diagonal, b.ints(position), axis=1)
        here = b.op("Gather", qp, b.ints(position), axis=1)
        step = b.op("Where", is_near, zero, b.op("Div", b.op("Sub", pqp, here), own))
        shrink = b.op("Add", one, step)
        unit = b.constant(np.eye(count, dtype=np.float32)[position : position + 1])
        p = b.op("Div", b.op("Add", p, b.op("Mul", step, unit)), shrink)
        gain = b.op("Add", b.op("Mul", step, own), b.op("Add", here, here))
        pqp = b.op("Div", b.op("Div", b.op("Add", pqp, b.op("Mul", step, gain)), shrink), shrink)
        row = b.op("Squeeze", b.op("Gather", q, b.ints(position), axis=1), b.ints(1))
        qp = b.op("Div", b.op("Add", qp, b.op("Mul", step, row)), shrink)
    return p


TABLE: dict[str, Decomposition] = {"SVMClassifier": svm_classifier, "SVMRegressor": svm_regressor}
