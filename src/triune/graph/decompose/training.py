"""Optimizer steps: Adagrad, Momentum and Adam, as ONNX's preview training domain defines them."""

import numpy as np
from onnx import TensorProto

from triune.graph.conversion.problems import Refusal
from triune.graph.decompose.context import Context, Decomposition


def _rate(c: Context, decay: str) -> str:
    """Build the learning rate R / (1 + T * decay_factor) from the node's inputs R, the first learning rate, and T, the
    number of the step.
    """
    b = c.build
    count = b.cast(c.input(1), TensorProto.FLOAT)
    factor = b.constant(c.attributes.get(decay, 0.0), np.float32)
    return b.op("Div", c.input(0), b.op("Add", b.constant(1, np.float32), b.op("Mul", count, factor)))


def _groups(c: Context, num_kinds: int) -> list[list[str]]:
    """For each optimized tensor, the names of its value, its gradient and its accumulators.

    The node's first inputs are the learning rate R and the step number T. Then come all values, all gradients, and all
    accumulators of each kind.

    Raises:
        Refusal: a tensor lacks one of them.
    """
    names = list(c.node.input[2:])
    if not names or len(names) % num_kinds:
        raise Refusal(f"it has {len(names)} inputs behind R and T, and each of its tensors has {num_kinds}")
    count = len(names) // num_kinds
    return [names[index::count] for index in range(count)]


def _regularized(c: Context, x: str, gradient: str) -> str:
    b = c.build
    norm = b.constant(c.attributes.get("norm_coefficient", 0.0), np.float32)
    return b.op("Add", b.op("Mul", norm, x), gradient)


def _give(c: Context, results: list[list[str]]) -> bool:
    flat = [group[kind] for kind in range(len(results[0])) for group in results]
    for index, name in enumerate(flat):
        c.give(name, index)
    return True


def adagrad(c: Context) -> bool:
    """Adagrad: H += g^2; x -= r * g / (sqrt(H) + epsilon).

    x is a tensor, g its gradient plus norm_coefficient * x, H the accumulated squares, r the learning rate.
    """
    b, rate = c.build, _rate(c, "decay_factor")
    epsilon = b.constant(c.attributes.get("epsilon", 1e-6), np.float32)
    results: list[list[str]] = []
    for x, gradient, squares in _groups(c, 3):
        g = _regularized(c, x, gradient)
        total = b.op("Add", squares, b.op("Mul", g, g))
        step = b.op("Div", b.op("Mul", rate, g), b.op("Add", b.op("Sqrt", total), epsilon))
        results.append([b.op("Sub", x, step), total])
    return _give(c, results)


def momentum(c: Context) -> bool:
    """Momentum: V = alpha * V + beta * g, with beta = 1 in the first step; x -= r * V.

    x is a tensor, g its gradient plus norm_coefficient * x, V the momentum, r the learning rate. In mode "nesterov", x
    -= r * (g + alpha * V).
    """
    b = c.build
    alpha = b.constant(c.attributes["alpha"], np.float32)
    is_first = b.op("Equal", c.input(1), b.constant(0, np.int64))
    beta = b.op("Where", is_first, b.constant(1, np.float32), b.constant(c.attributes["beta"], np.float32))
    results: list[list[str]] = []
    for x, gradient, velocity in _groups(c, 3):
        g = _regularized(c, x, gradient)
        new = b.op("Add", b.op("Mul", alpha, velocity), b.op("Mul", beta, g))
        step = b.op("Add", g, b.op("Mul", alpha, new)) if c.attributes["mode"] == "nesterov" else new
        results.append([b.op("Sub", x, b.op("Mul", c.input(0), step)), new])
    return _give(c, results)


def adam(c: Context) -> bool:
    """Adam: V = alpha * V + (1 - alpha) * g; H = beta * H + (1 - beta) * g^2; x -= r * V / (sqrt(H) + epsilon).

    x is a tensor, g its gradient plus norm_coefficient * x, V and H the means of g and g^2. r is the learning rate R,
    and from step T = 1 on R * sqrt(1 - beta^T) / (1 - alpha^T). The new x is then multiplied by
    1 - norm_coefficient_post.
    """
    b = c.build
    alpha, beta = c.attributes.get("alpha", 0.9), c.attributes.get("beta", 0.999)
    one = b.constant(1, np.float32)
    steps = b.cast(c.input(1), TensorProto.FLOAT)
    powers = [b.op("Pow", b.constant(each, np.float32), steps) for each in (alpha, beta)]
    corrected = b.op(
        "Div", b.op("Mul", c.input(0), b.op("Sqrt", b.op("Sub", one, powers[1]))), b.op("Sub", one, powers[0])
    )
    is_later = b.op("Greater", c.input(1), b.constant(0, np.int64))
    rate = b.op("Where", is_later, corrected, c.input(0))
    epsilon = b.constant(c.attributes.get("epsilon", 1e-6), np.float32)
    post = b.constant(1 - c.attributes.get("norm_coefficient_post", 0.0), np.float32)
    results: list[list[str]] = []
    for x, gradient, mean, squares in _groups(c, 4):
        g = _regularized(c, x, gradient)
        new_mean = _blend(c, mean, g, alpha)
        new_squares = _blend(c, squares, b.op("Mul", g, g), beta)
        step = b.op("Div", b.op("Mul", rate, new_mean), b.op("Add", b.op("Sqrt", new_squares), epsilon))
        results.append([b.op("Mul", post, b.op("Sub", x, step)), new_mean, new_squares])
    return _give(c, results)


def _blend(c: Context, old: str, new: str, weight: float) -> str:
    b = c.build
    kept = b.op("Mul", b.constant(weight, np.float32), old)
    return b.op("Add", kept, b.op("Mul", b.constant(1 - weight, np.float32), new))


TABLE: dict[str, Decomposition] = {"Adagrad": adagrad, "Momentum": momentum, "Adam": adam}
