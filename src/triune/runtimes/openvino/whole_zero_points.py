"""Rounds the zero points of quantized weights to integers, and adds a small product that corrects the difference.

OpenVINO's fast products round activations to 8 bits and multiply integers. They take weights whose zero points are
integers (seen in 2026.4.1); others are unpacked to fp32 first. Some forms of weights (Q4_1, Q4_K) have an offset for
each block, and so zero points that are not integers.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from triune.runtimes.openvino.library import library, opset

_LARGEST: Final = {"u4": 15, "u8": 255}
"""The largest integer that can be a zero point, by OpenVINO's name for the type of the codes."""


def make_zero_points_whole(model: Any) -> int:
    """Change products with weights `scale * (code - z)`, where z is the zero point of a block of codes.

    Given MatMul(x, W), W [in, out] the transpose of Reshape(scale * (code - z)): codes u4 or u8 [out, blocks, block],
    scales and z fp32 [out, blocks, 1].
    Result: MatMul(x, W') + MatMul(sums, R). W' has the nearest zero point that is a code, n, instead of z; `sums`
    [..., blocks] are the sums of x over each block, and R [blocks, out] is scale * (n - z). Both sides are the same
    number:

        sum_i x_i * scale * (code_i - z) = sum_i x_i * scale * (code_i - n) + scale * (n - z) * sum_i x_i

    Args:
        model: an OpenVINO model; changed.

    Returns:
        the number of products that were changed.
    """
    count = 0
    sums: dict[tuple[str, int, int], Any] = {}
    for product in model.get_ordered_ops():
        subtract = _subtract_of(product)
        if subtract is None:
            continue
        x = product.input_value(0)
        scaled = next(iter(subtract.output(0).get_target_inputs())).get_node()
        zeros, scales = (each.input_value(1).get_node().data for each in (subtract, scaled))
        codes_type = subtract.input_value(0).get_node().input_value(0).get_element_type()
        nearest = np.clip(np.rint(zeros), 0, _LARGEST[codes_type.get_type_name()])
        subtract.input(1).replace_source_output(_integers(nearest, codes_type))
        num_blocks, block_size = subtract.get_output_shape(0)[1:]
        key = x.get_node().get_name(), x.get_index(), num_blocks
        if key not in sums:
            sums[key] = _sums(x, num_blocks, block_size)
        missing = opset.matmul(sums[key], opset.constant((scales * (nearest - zeros))[..., 0]), False, True)
        readers = product.output(0).get_target_inputs()
        whole = opset.add(product.output(0), missing.output(0))
        for reader in readers:
            reader.replace_source_output(whole.output(0))
        count += 1
    model.validate_nodes_and_infer_types()
    return count


def _subtract_of(product: Any) -> Any | None:
    """The Subtract of the zero points of a product's packed weights; None if the product is of another form."""
    if product.get_type_name() != "MatMul" or any(product.get_attributes().values()):
        return None
    if product.input_value(0).get_partial_shape().rank.is_dynamic:
        return None
    node = product
    for name, index in (("Transpose", 1), ("Reshape", 0), ("Multiply", 0), ("Subtract", 0)):
        node = node.input_value(index).get_node()
        # Refuse a result that another node reads, too: such weights must stay as they are.
        if node.get_type_name() != name or len(node.output(0).get_target_inputs()) > 1:
            return None
    codes, zeros = (node.input_value(index).get_node() for index in (0, 1))
    scales = next(iter(node.output(0).get_target_inputs())).get_node().input_value(1).get_node()
    shape = node.get_output_partial_shape(0)
    is_of_blocks = shape.rank.get_length() == 3 and all(
        each.get_type_name() == "Constant" and list(each.get_output_shape(0)) == [*list(shape.to_shape())[:2], 1]
        for each in (zeros, scales)
    )
    if not is_of_blocks or codes.get_type_name() != "Convert":
        return None
    packed = codes.input_value(0)
    if packed.get_node().get_type_name() != "Constant" or packed.get_element_type().get_type_name() not in _LARGEST:
        return None
    return node


def _sums(x: Any, num_blocks: int, block_size: int) -> Any:
    """Build the sums of `x` over each block of `block_size` elements of its last axis: [..., blocks]."""
    # In the target shape of a Reshape, 0 keeps the size of the dimension.
    kept = [0] * (x.get_partial_shape().rank.get_length() - 1)
    blocks = opset.reshape(x, opset.constant(np.array([*kept, num_blocks, block_size], np.int64)), True)
    return opset.reduce_sum(blocks.output(0), opset.constant(np.array([-1], np.int64)), False)


def _integers(values: NDArray[np.float32], element_type: Any) -> Any:
    """Build a constant of integers of this OpenVINO type, and its conversion to fp32."""
    flat = values.astype(np.uint8).reshape(-1)
    if element_type == library.Type.u4:
        pairs = np.append(flat, np.uint8(0)) if flat.size % 2 else flat
        flat = pairs[0::2] | (pairs[1::2] << np.uint8(4))
    # Let the tensor own its memory instead of using an array's: the constant uses this memory without a copy.
    tensor = library.Tensor(element_type, values.shape)
    tensor.data.reshape(-1)[...] = flat
    return opset.convert(opset.constant(tensor).output(0), "f32").output(0)
