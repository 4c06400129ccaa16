"""Find integers that are cast to floats and only copied to an output: reshaped, selected, concatenated with scores.

fp16 rounds 30522 to 30528, and 70000 to infinity. The graph's outputs are fp32, so the nodes on the way to them compute
in fp32, too.
"""

from onnx import NodeProto, TensorProto

from triune.graph.half.exact import exact_arithmetic, may_exceed_exact_integers
from triune.graph.half.operators import COPY_INTEGERS, MATRIX_PRODUCTS
from triune.graph.half.producers import Producers


def integer_producers(output: str, producers: Producers) -> list[NodeProto]:
    """The nodes that compute integers beyond 2048 and copy them to a float output; [] if the output has none."""
    if producers.values.elem_type(output) != TensorProto.FLOAT:
        return []

    def begin(name: str, _: NodeProto) -> list[NodeProto]:
        before = exact_arithmetic(name, producers, {})
        is_of_products = any(each.op_type in MATRIX_PRODUCTS for each in before)
        return (
            before if not is_of_products and any(may_exceed_exact_integers(each, producers) for each in before) else []
        )

    return producers.leading_to(output, begin, lambda _, node: node.op_type in COPY_INTEGERS)
