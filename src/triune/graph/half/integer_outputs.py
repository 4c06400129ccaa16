"""Find whole numbers that are only copied to outputs of floats: concatenated with scores, reshaped, selected.

fp16 rounds 30522 to 30528, and 70000 to infinity. The graph's outputs are fp32, so the nodes on the way to them compute
in fp32, too.
"""

from onnx import NodeProto, TensorProto

from triune.graph.half.exact import exact, is_beyond
from triune.graph.half.operators import COPY_INTEGERS, MATRIX_PRODUCTS
from triune.graph.half.producers import Producers


def integer_producers(output: str, producers: Producers) -> list[NodeProto]:
    """The nodes between whole numbers that fp16 cannot represent and an output that copies them; [] where there are
    none.
    """
    if producers.values.elem_type(output) != TensorProto.FLOAT:
        return []

    def begin(name: str, _: NodeProto) -> list[NodeProto]:
        before = exact(name, producers, {})
        is_of_products = any(each.op_type in MATRIX_PRODUCTS for each in before)
        return before if not is_of_products and any(is_beyond(each, producers) for each in before) else []

    return producers.leading_to(output, begin, lambda _, node: node.op_type in COPY_INTEGERS)
