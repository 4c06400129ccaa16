"""Numbers that are quantized by a scale made of themselves, and sums of products of the whole numbers that result.

`scale = (max(x) - min(x)) / 255; round(x / scale)`: a scale rounded to fp16 moves numbers to other levels, and a sum of
products of levels (255 * 127 * 3 is beyond fp16 already) is brought back only by the scales that follow.
"""

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto, TensorProto

from triune.graph.half.makers import Makers
from triune.graph.half.operators import EXTREMES, MATRIX_PRODUCTS, RESHAPES, SCALE_ARITHMETIC, SHIFTS

_DEEPEST = 32


def level_makers(node: NodeProto, makers: Makers) -> list[NodeProto]:
    """What makes the levels of a Round by a scale that is made of a largest number, with that Round; or nothing."""
    if node.op_type != "Round":
        return []
    found, name = [node], node.input[0]
    for _ in range(_DEEPEST):
        maker = makers.of(name)
        if maker is None:
            return []
        found.append(maker)
        if maker.op_type in ("Div", "Mul"):
            for scale in reversed(maker.input):
                if scale_makers := _scale_makers(scale, makers):
                    return [*found, *scale_makers]
            return []
        if maker.op_type not in SHIFTS:
            return []
        name = maker.input[0]
    return []


def output_makers(node: NodeProto, makers: Makers) -> list[NodeProto]:
    """What makes levels that the model gives, back to other levels or to inputs; nothing where that is a whole network.

    Such levels are seen: what fp16 rounds beside a tie is another number. One product of matrices is among it at most.
    """
    if node.op_type != "QuantizeLinear" or not makers.is_output(node.output[0]):
        return []
    found, names, seen = [node], [node.input[0]], set[str]()
    while names:
        name = names.pop()
        maker = makers.of(name)
        if maker is None or name in seen or makers.values.elem_type(name) != TensorProto.FLOAT:
            continue
        seen.update(maker.output)
        found.append(maker)
        names += maker.input
        is_of_bodies = any(attribute.HasField("g") for attribute in maker.attribute)
        num_products = sum(each.op_type in MATRIX_PRODUCTS for each in found)
        if is_of_bodies or num_products > 1 or len(found) > _DEEPEST:
            return []
    return found


def _scale_makers(scale: str, makers: Makers) -> list[NodeProto]:
    """The nodes between the extremes of a tensor and a scale made of them; none if it is made of something else."""
    names, seen, found = [scale], set[str](), list[NodeProto]()
    is_of_extremes = False
    while names and len(seen) < _DEEPEST:
        name = names.pop()
        maker = makers.of(name)
        if name in seen or maker is None:
            continue
        seen.add(name)
        if maker.op_type in EXTREMES:
            is_of_extremes = True
        elif maker.op_type in SCALE_ARITHMETIC:
            found.append(maker)
            names += maker.input
        else:
            return []
    return found if is_of_extremes else []


def is_whole(name: str, makers: Makers) -> bool:
    """Is an operand of a product made of whole numbers: levels, integers of 8 bits or weights that are whole?"""
    for _ in range(_DEEPEST):
        array = makers.values.constant(name)
        if array is not None:
            return array.size > 0 and bool(np.all(array == np.round(array)))
        maker = makers.of(name)
        if maker is None:
            return False
        match maker.op_type:
            case "Round":
                return bool(level_makers(maker, makers))
            case "Cast":
                kind = makers.values.elem_type(maker.input[0])
                if kind in (TensorProto.UINT8, TensorProto.INT8):
                    return True
            case "DequantizeLinear":
                scale = makers.values.constant(maker.input[1])
                return scale is not None and bool(np.all(scale == 1))
            case "Transpose" | "Pad" | "Concat" | "Slice" | "Gather":
                pass
            case _ if maker.op_type in SHIFTS:
                pass
            case _:
                return False
        name = maker.input[0]
    return False


def scale_partners(product: NodeProto, makers: Makers) -> Iterator[NodeProto]:
    """What makes the scales by which a sum of whole numbers is multiplied, before which they may be tiny."""
    names = list(product.input)
    for _ in range(_DEEPEST):
        if not names:
            return
        node = makers.of(names.pop())
        if node is not None and node.op_type in RESHAPES | {"Mul", "Div", "Reciprocal"}:
            yield node
            names += node.input


def is_of_whole_products(name: str, makers: Makers) -> bool:
    """Is a value what MatMulInteger or ConvInteger gives, with or without a bias?"""
    names = [name]
    for _ in range(_DEEPEST):
        if not names:
            return False
        node = makers.of(names.pop())
        if node is None:
            continue
        if node.op_type in ("MatMul", "Gemm", "Conv"):
            return True
        if node.op_type in SHIFTS | {"Cast", "Round", "Transpose", "Concat", "Slice"}:
            names += node.input
    return False
