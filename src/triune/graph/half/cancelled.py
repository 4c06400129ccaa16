"""Find sums in which a constant cancels what is computed elementwise from an input, where rounding to fp16 loses the
difference.

fp16 keeps 11 bits of x. For example, temperatures in kelvin, (x - 288) / 0.5, have an error of a quarter of the
standard deviation 0.5.
"""

from collections.abc import Iterator

import numpy as np
from onnx import GraphProto, NodeProto

from triune.graph.audit.uses import uses_of
from triune.graph.cancellation import Curve, cancelling_curves, folded_means
from triune.graph.core_ops import OPSET
from triune.graph.half.exact import copies_of_inputs
from triune.graph.half.operators import LAYERS, MATRIX_PRODUCTS
from triune.graph.half.producers import Producers
from triune.graph.values import attributes_of

_MOST = 0.01
"""The largest tolerated absolute error of a difference after its product with a constant. The product is assumed to be
about 1.
"""

_MOST_ALONE = 0.125
"""The largest tolerated absolute error of a difference that is not multiplied by a constant, or that only a layer's
weights multiply. Such a difference is assumed to be of size 10 to 100.
"""


def cancelled_nodes(graph: GraphProto, producers: Producers) -> Iterator[NodeProto]:
    """Yield the nodes that compute differences of an input and a constant, such as (x - 288) / 0.5, of which rounding
    to fp16 loses too much.

    If the bias of a layer subtracts the constant, these are the nodes from the input to the layer and its bias.

    Args:
        graph: the main graph of a model; nothing is found in subgraphs.
        producers: the producers of this graph.
    """
    if producers.is_within:
        return
    masks = {name for name, use in uses_of(graph).items() if use.kept is not None}
    lost: set[str] = set()
    for name, curve in cancelling_curves(graph, producers.values, OPSET, can_sample=True).items():
        # Skip a difference after a node in fp32: it is accurate already.
        is_known = any(output in lost for node in curve.nodes for output in node.output)
        if not is_known and masks.isdisjoint(curve.sources) and _is_lost(name, curve, producers):
            lost.add(name)
            yield from curve.nodes
    copies = {
        node.input[0]: before
        for node in graph.node
        if node.op_type in MATRIX_PRODUCTS and (before := copies_of_inputs(node.input[0], producers)) is not None
    }
    for each in folded_means(graph, producers.values, copies):
        if each.is_certain:
            yield from (*copies[each.operand], *each.nodes)


def _is_lost(name: str, curve: Curve, producers: Producers) -> bool:
    readers = producers.readers(name)
    gains = [_gain(reader, name, producers) for reader in readers]
    most = _MOST if curve.is_scaled else _MOST_ALONE
    of_layers = max((gain for gain in gains if gain is not None), default=0.0)
    if readers and None not in gains and not producers.is_output(name):
        return curve.lost * of_layers > most
    return curve.lost > most or curve.lost * of_layers > _MOST_ALONE


def _gain(node: NodeProto, name: str, producers: Producers) -> float | None:
    """The factor by which a layer with constant weights amplifies the errors of its operand's elements, if these errors
    are independent; None for other nodes.
    """
    if node.op_type not in MATRIX_PRODUCTS or len(node.input) < 2:
        return None
    position = 0 if node.input[0] == name else 1
    weight = producers.values.constant(node.input[1 - position])
    if weight is None or weight.ndim < 2:
        return None
    array = weight.astype(np.float64)
    if node.op_type in LAYERS - {"Gemm"}:
        sums = np.square(array).sum(axis=tuple(range(2, array.ndim)))
        squares = sums.sum(axis=1 if node.op_type == "Conv" else 0)
    else:
        is_turned = node.op_type == "Gemm" and bool(attributes_of(node).get("transA" if position else "transB", 0))
        squares = np.square(array).sum(axis=-1 if is_turned != bool(position) else -2)
    return float(np.sqrt(squares.max(initial=0.0)))
