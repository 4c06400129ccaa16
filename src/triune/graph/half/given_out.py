"""Whole numbers that a graph gives out as floats, by copies alone: joined with scores, reshaped, chosen.

fp16 has 30528 for 30522 and infinity for 70000. The graph's outputs are of fp32, and so is all on the way to them.
"""

from onnx import NodeProto, TensorProto

from triune.graph.half.exact import exact, is_beyond
from triune.graph.half.makers import Makers
from triune.graph.half.operators import COPY_INTEGERS, MATRIX_PRODUCTS


def integer_makers(output: str, makers: Makers) -> list[NodeProto]:
    """The nodes from whole numbers that fp16 does not hold on to an output; none where none leads to it."""
    if makers.values.elem_type(output) != TensorProto.FLOAT:
        return []

    def begin(name: str, _: NodeProto) -> list[NodeProto]:
        before = exact(name, makers, {})
        is_of_products = any(each.op_type in MATRIX_PRODUCTS for each in before)
        return before if not is_of_products and any(is_beyond(each, makers) for each in before) else []

    return makers.leading_to(output, begin, lambda _, node: node.op_type in COPY_INTEGERS)
