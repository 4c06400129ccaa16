"""Whole numbers that a graph gives out as floats, by copies alone: joined with scores, reshaped, chosen.

fp16 has 30528 for 30522 and infinity for 70000. The graph's outputs are of fp32, and so is all on the way to them.
"""

from onnx import NodeProto, TensorProto

from triune.graph.half.exact import exact, is_beyond
from triune.graph.half.makers import DEEPEST, Makers
from triune.graph.half.products import PRODUCTS
from triune.graph.half.reach import JOINS, PASSES

_COPIES = PASSES | JOINS | {"Cast", "Clip", "Relu", "ReduceMax", "ReduceMin", "MaxPool", "TopK"}
"""Operators whose results are elements of their operands, or these without their signs or beyond limits."""


def whole_makers(output: str, makers: Makers) -> list[NodeProto]:
    """The nodes from whole numbers that fp16 does not hold on to an output; none where none leads to it."""
    found: dict[str, list[NodeProto]] = {}

    def leading_to(name: str, depth: int) -> list[NodeProto]:
        if name in found:
            return found[name]
        found[name] = []
        node = makers.of(name)
        if node is None or depth > DEEPEST or makers.values.elem_type(name) != TensorProto.FLOAT:
            return []
        before = exact(name, makers, {})
        if any(is_beyond(each, makers) for each in before) and not any(each.op_type in PRODUCTS for each in before):
            found[name] = before
        elif node.op_type in _COPIES:
            before = [each for operand in node.input if operand for each in leading_to(operand, depth + 1)]
            found[name] = [*before, node] if before else []
        return found[name]

    return leading_to(output, 0)
