"""The constant factor by which a chain of products and quotients multiplies a value."""

import numpy as np
from onnx import NodeProto

from triune.graph.half.limits import sizes_within
from triune.graph.half.operators import RESHAPES
from triune.graph.half.producers import DEEPEST, Producers


def factor_of(name: str, producers: Producers) -> float:
    """The largest factor by which successive nodes multiply a value by constants, as in x * 1e-4 * 1e-4; 1 if there are
    none.
    """
    factor = 1.0
    for _ in range(DEEPEST):
        node = producers.of(name)
        if node is None:
            break
        if node.op_type in RESHAPES:
            name = node.input[0]
            continue
        found = _constant_factor(node, producers)
        if found is None:
            break
        factor, name = factor * found[0], found[1]
    return factor


def _constant_factor(node: NodeProto, producers: Producers) -> tuple[float, str] | None:
    """The largest factor by which a node multiplies a value, and the value; None if it does not multiply by a
    constant.
    """
    if node.op_type not in ("Mul", "Div"):
        return None
    for position in (1, 0) if node.op_type == "Mul" else (1,):
        array = producers.values.constant(node.input[position])
        sizes = None if array is None else sizes_within(np.asarray(array))
        if sizes is not None:
            least, most = sizes
            return (most if node.op_type == "Mul" else 1 / least), node.input[1 - position]
    return None
