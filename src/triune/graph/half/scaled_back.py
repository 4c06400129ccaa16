"""Numbers that are beyond fp16 until they are scaled back: `(x * z) * 1e-4`, `(a + b) / 2`, `(x - low) / (high - low)`.

How large activations are is not known, but a scale far below 1 tells that what it scales is large. Model inputs may be
as large as fp16 allows, so sums of two of them that are halved count as well.
"""

from onnx import NodeProto

from triune.graph.half.intervals import magnitude
from triune.graph.half.limits import LARGEST, sizes_within
from triune.graph.half.operators import ACCUMULATIONS, ELEMENTWISE_OF_INPUTS, EXTREMES, PAIRS, SCALE_WITH_OPERANDS
from triune.graph.half.producers import DEEPEST, Producers
from triune.graph.half.scale import is_strong, scales_of

_HALF = 0.5


def scaled_back(node: NodeProto, producers: Producers) -> list[NodeProto]:
    """The nodes that compute a value beyond fp16 that `node` scales down, and `node` itself; [] for other nodes."""
    if node.op_type not in ("Mul", "Div"):
        return []
    for name, scale in scales_of(producers.values, node):
        if scale.name:
            continue
        found = _products(name, producers) if is_strong(scale) else []
        if not found and abs(scale.factors).max() <= _HALF:
            found = of_given(name, producers) or []
        if found:
            return [*found, node]
    if node.op_type == "Div" and producers.values.tensor(node.input[0]) is None:
        one, other = (of_given(name, producers) for name in node.input)
        return [*one, *other, node] if one is not None and other is not None and (one or other) else []
    return []


def of_given(name: str, producers: Producers) -> list[NodeProto] | None:
    """The nodes that compute a value from model inputs element by element; None for any other value.

    Returns:
        the nodes; [] if there is no sum, product or inverse of inputs among them.
    """
    if producers.is_within:
        return None
    found: dict[int, NodeProto] = {}
    names = [name]
    is_beyond = False
    while names:
        each = names.pop()
        if producers.is_given(each) or producers.values.tensor(each) is not None:
            continue
        node = producers.of(each)
        if node is None or node.op_type not in ELEMENTWISE_OF_INPUTS or len(found) > DEEPEST:
            return None
        if id(node) in found:
            continue
        found[id(node)] = node
        is_beyond = is_beyond or (_is_of_two(node, producers) and _may_leave(node, producers))
        names += producers.floats(node)
    return list(found.values()) if is_beyond else []


def _products(name: str, producers: Producers) -> list[NodeProto]:
    """The nodes from products, sums of many and inverses to a value of their size; [] where there are none."""

    def begin(_: str, node: NodeProto) -> list[NodeProto]:
        is_sum = node.op_type in ("Add", "Sub")
        is_product = node.op_type in ACCUMULATIONS or (not is_sum and _is_of_two(node, producers))
        return [node] if is_product and _may_leave(node, producers) else []

    return producers.leading_to(name, begin, lambda _, node: node.op_type in SCALE_WITH_OPERANDS - EXTREMES)


def _is_of_two(node: NodeProto, producers: Producers) -> bool:
    """Whether a node adds or multiplies two computed values, or sums up, inverts or enlarges one."""
    computed = [name for name in node.input if name and producers.values.tensor(name) is None]
    if node.op_type in PAIRS and len(computed) == 2:
        return True
    if node.op_type == "Div" and producers.values.tensor(node.input[0]) is not None:
        return True
    if node.op_type in ("Mul", "Div"):
        arrays = [array for name in node.input if (array := producers.values.constant(name)) is not None]
        sizes = sizes_within(arrays[0]) if arrays else None
        return sizes is not None and (sizes[1] > 1 if node.op_type == "Mul" else sizes[0] < 1)
    return node.op_type in ("ReduceSum", "Reciprocal")


def _may_leave(node: NodeProto, producers: Producers) -> bool:
    return magnitude(producers.bounds.of(node.output[0])) > LARGEST
