"""Find values that are beyond fp16 until a later node scales them down: `(x * z) * 1e-4`, `(a + b) / 2`, `(x - low) /
(high - low)`.

The size of activations is not known, but a scale far below 1 suggests that its operand is large. Inputs of the model
may be as large as fp16 allows, so (a + b) / 2 of two inputs counts as well.
"""

from onnx import NodeProto

from triune.graph.half.intervals import magnitude
from triune.graph.half.limits import LARGEST, sizes_within
from triune.graph.half.operators import ACCUMULATIONS, ELEMENTWISE_OF_INPUTS, EXTREMES, PAIRS, SCALE_WITH_OPERANDS
from triune.graph.half.producers import DEEPEST, Producers
from triune.graph.half.scale import is_strong, scales_of

_HALF = 0.5


def scaled_back(node: NodeProto, producers: Producers) -> list[NodeProto]:
    """The nodes that compute a value beyond fp16 which `node` scales down, and `node` itself; [] for any other node."""
    if node.op_type not in ("Mul", "Div"):
        return []
    for name, scale in scales_of(producers.values, node):
        if scale.name:
            continue
        found = _products(name, producers) if is_strong(scale) else []
        if not found and abs(scale.factors).max() <= _HALF:
            found = elementwise_of_inputs(name, producers) or []
        if found:
            return [*found, node]
    if node.op_type == "Div" and producers.values.tensor(node.input[0]) is None:
        one, other = (elementwise_of_inputs(name, producers) for name in node.input)
        return [*one, *other, node] if one is not None and other is not None and (one or other) else []
    return []


def elementwise_of_inputs(name: str, producers: Producers) -> list[NodeProto] | None:
    """Find the nodes that compute a value from inputs of the model by elementwise operators alone.

    Returns:
        the nodes; [] if none of them is a sum, product or inverse that may be beyond fp16; None if the value is
        computed otherwise.
    """
    if producers.is_within:
        return None
    found: dict[int, NodeProto] = {}
    names = [name]
    is_beyond = False
    while names:
        each = names.pop()
        if producers.is_input(each) or producers.values.tensor(each) is not None:
            continue
        node = producers.of(each)
        if node is None or node.op_type not in ELEMENTWISE_OF_INPUTS or len(found) > DEEPEST:
            return None
        if id(node) in found:
            continue
        found[id(node)] = node
        is_beyond = is_beyond or (_may_enlarge(node, producers) and _may_leave(node, producers))
        names += producers.floats(node)
    return list(found.values()) if is_beyond else []


def _products(name: str, producers: Producers) -> list[NodeProto]:
    """The nodes on the paths to the value `name` from a product, an inverse or a sum of many elements whose result may
    be beyond fp16; [] if there are none.
    """

    def begin(_: str, node: NodeProto) -> list[NodeProto]:
        is_sum = node.op_type in ("Add", "Sub")
        is_product = node.op_type in ACCUMULATIONS or (not is_sum and _may_enlarge(node, producers))
        return [node] if is_product and _may_leave(node, producers) else []

    return producers.leading_to(name, begin, lambda _, node: node.op_type in SCALE_WITH_OPERANDS - EXTREMES)


def _may_enlarge(node: NodeProto, producers: Producers) -> bool:
    """Whether a node adds or multiplies two values that are not constants, or sums, inverts or enlarges a value."""
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
