"""Find nodes that only copy numbers between nodes in fp32. They must be in fp32, too.

In x / Where(norm == 0, 1, norm), where the norm and the division compute in fp32, the Where between them only copies.
It has to compute in fp32, too: a cast to fp16 would make the norm infinite.

In sum(x^2) - (2 x) C + sum(C^2), where the squares and the product compute in fp32, 2 x has to compute in fp32, too,
since the model's input x is in fp32: otherwise the squares would be those of x, and the product that of x rounded to
fp16.
"""

from collections.abc import Collection, Iterator

from onnx import GraphProto, NodeProto, TensorProto

from triune.graph.half.operators import COPY_BETWEEN, SCALE_INPUTS
from triune.graph.values import Values


def copies_between(graph: GraphProto, values: Values, kept: Collection[str]) -> Iterator[NodeProto]:
    """Find the nodes that only copy numbers between nodes in fp32, or from nodes in fp32 to outputs of the graph.

    Args:
        graph: the graph to search.
        values: the types, shapes and constants of the graph.
        kept: the first results of the nodes that compute in fp32.
    """
    wide: set[str] = set()
    read = {value.name for value in graph.output}
    candidates: list[NodeProto] = []
    for node in graph.node:
        if any(name in kept for name in node.output):
            wide.update(node.output)
            read.update(node.input)
        elif node.op_type in COPY_BETWEEN and any(_is_float(name, values) and name in wide for name in node.input):
            candidates.append(node)
            wide.update(node.output)
    for node in reversed(candidates):
        if any(name in read for name in node.output):
            read.update(node.input)
            yield node


def scaled_inputs(graph: GraphProto, values: Values, kept: Collection[str]) -> Iterator[NodeProto]:
    """Find the nodes that copy inputs of the graph, or scale or shift them by constants, for nodes in fp32.

    Args:
        graph: the graph to search, which is no subgraph.
        values: the types, shapes and constants of the graph.
        kept: the first results of the nodes that compute in fp32.
    """
    of_inputs = {value.name for value in graph.input}
    read: set[str] = set()
    candidates: list[NodeProto] = []
    for node in graph.node:
        if any(name in kept for name in node.output):
            read.update(node.input)
        elif node.op_type in SCALE_INPUTS and _is_float(node.output[0], values):
            varying = [name for name in node.input if name and values.constant(name) is None]
            if varying and of_inputs.issuperset(varying):
                candidates.append(node)
                of_inputs.update(node.output)
    for node in reversed(candidates):
        if any(name in read for name in node.output):
            read.update(node.input)
            yield node


def _is_float(name: str, values: Values) -> bool:
    return bool(name) and values.elem_type(name) == TensorProto.FLOAT
