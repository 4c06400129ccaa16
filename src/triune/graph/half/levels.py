"""Find dynamic quantization, whose scale is computed from the tensor itself, and matrix products of quantized levels.

scale = (max(x) - min(x)) / 255; level = round(x / scale). If the scale is rounded to fp16, levels change. A sum of
products of levels is beyond fp16 (even 255 * 127 * 3) until the scales after the product multiply it.
"""

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto, TensorProto

from triune.graph.half.operators import EXTREMES, MATRIX_PRODUCTS, RESHAPES, SCALE_ARITHMETIC, SHIFTS
from triune.graph.half.producers import Producers

_DEEPEST = 32


def level_producers(node: NodeProto, producers: Producers) -> list[NodeProto]:
    """The nodes of Round(x / scale), if scale is computed from the extremes of a tensor; [] for any other node."""
    if node.op_type != "Round":
        return []
    found, name = [node], node.input[0]
    for _ in range(_DEEPEST):
        producer = producers.of(name)
        if producer is None:
            return []
        found.append(producer)
        if producer.op_type in ("Div", "Mul"):
            for scale in reversed(producer.input):
                if scale_producers := _scale_producers(scale, producers):
                    return [*found, *scale_producers]
            return []
        if producer.op_type not in SHIFTS:
            return []
        name = producer.input[0]
    return []


def output_producers(node: NodeProto, producers: Producers) -> list[NodeProto]:
    """The nodes that compute a quantized output of the model from other quantized values or from inputs.

    fp16 may round a number near the middle of two levels to the other one, which changes the output. [] if more than
    one matrix product comes before the output: the results of a whole network are rounded anyway.
    """
    if node.op_type != "QuantizeLinear" or not producers.is_output(node.output[0]):
        return []
    found, names, seen = [node], [node.input[0]], set[str]()
    while names:
        name = names.pop()
        producer = producers.of(name)
        if producer is None or name in seen or producers.values.elem_type(name) != TensorProto.FLOAT:
            continue
        seen.update(producer.output)
        found.append(producer)
        names += producer.input
        is_of_bodies = any(attribute.HasField("g") for attribute in producer.attribute)
        num_products = sum(each.op_type in MATRIX_PRODUCTS for each in found)
        if is_of_bodies or num_products > 1 or len(found) > _DEEPEST:
            return []
    return found


def _scale_producers(scale: str, producers: Producers) -> list[NodeProto]:
    """The nodes that compute a scale from the maximum or minimum of a tensor; [] if it is computed otherwise."""
    names, seen, found = [scale], set[str](), list[NodeProto]()
    is_of_extremes = False
    while names and len(seen) < _DEEPEST:
        name = names.pop()
        producer = producers.of(name)
        if name in seen or producer is None:
            continue
        seen.add(name)
        if producer.op_type in EXTREMES:
            is_of_extremes = True
        elif producer.op_type in SCALE_ARITHMETIC:
            found.append(producer)
            names += producer.input
        else:
            return []
    return found if is_of_extremes else []


def is_integral(name: str, producers: Producers) -> bool:
    """Whether all elements of a matrix product's operand are integers: quantization levels, 8-bit integers, or weights
    without fractions.
    """
    for _ in range(_DEEPEST):
        array = producers.values.constant(name)
        if array is not None:
            return array.size > 0 and bool(np.all(array == np.round(array)))
        producer = producers.of(name)
        if producer is None:
            return False
        match producer.op_type:
            case "Round":
                return bool(level_producers(producer, producers))
            case "Floor":
                return True
            case "Cast":
                kind = producers.values.elem_type(producer.input[0])
                if kind in (TensorProto.UINT8, TensorProto.INT8):
                    return True
            case "DequantizeLinear":
                scale = producers.values.constant(producer.input[1])
                return scale is not None and bool(np.all(scale == 1))
            case "Transpose" | "Pad" | "Concat" | "Slice" | "Gather":
                pass
            case _ if producer.op_type in SHIFTS:
                pass
            case _:
                return False
        name = producer.input[0]
    return False


def scale_partners(product: NodeProto, producers: Producers) -> Iterator[NodeProto]:
    """The nodes that compute the scales by which `product` multiplies sums of integers. The scales may be too small for
    fp16.
    """
    names = list(product.input)
    for _ in range(_DEEPEST):
        if not names:
            return
        node = producers.of(names.pop())
        if node is not None and node.op_type in RESHAPES | {"Mul", "Div", "Reciprocal"}:
            yield node
            names += node.input


def is_of_integer_products(name: str, producers: Producers) -> bool:
    """Whether a value is a matrix product, perhaps shifted, cast or reshaped, as a decomposed MatMulInteger is."""
    names = [name]
    for _ in range(_DEEPEST):
        if not names:
            return False
        node = producers.of(names.pop())
        if node is None:
            continue
        if node.op_type in ("MatMul", "Gemm", "Conv"):
            return True
        if node.op_type in SHIFTS | {"Cast", "Round", "Transpose", "Concat", "Slice"}:
            names += node.input
    return False
