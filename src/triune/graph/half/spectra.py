"""Find Fourier transforms of a model's inputs whose results are squared, as audio models compute them first.

A sample of 16 bits is up to 32768, within fp16, but a sum of 256 samples times a window is not. The squares compute in
fp32 in any case, so that the transform before them may, too.
"""

from onnx import NodeProto

from triune.graph.half.exact import exact_arithmetic
from triune.graph.half.operators import COPIES, DENSE_PRODUCTS
from triune.graph.half.partners import is_square
from triune.graph.half.producers import Producers


def spectrum_producers(square: NodeProto, producers: Producers) -> list[NodeProto]:
    """The nodes from the model's inputs to the operand of a square, if they are one product with constant weights, as a
    Fourier transform is; else [].

    Args:
        square: any node. If it is not a square, the result is [].
        producers: finds the nodes that compute its operand.
    """
    if not is_square(square, producers):
        return []
    return producers.leading_to(
        square.input[0],
        lambda _, node: _product_of_inputs(node, producers),
        lambda _, node: node.op_type in COPIES | {"Concat"},
    )


def _product_of_inputs(node: NodeProto, producers: Producers) -> list[NodeProto]:
    """The matrix product `node`, which has constant weights, and the arithmetic that leads to it from the model's
    inputs. [] for any other node, or if another layer comes before it.
    """
    if node.op_type not in DENSE_PRODUCTS or producers.values.tensor(node.input[1]) is None:
        return []
    name = node.input[0]
    before = exact_arithmetic(name, producers, {})
    if any(each.op_type in DENSE_PRODUCTS for each in before):
        return []
    return [*before, node] if before or producers.is_input(name) else []
