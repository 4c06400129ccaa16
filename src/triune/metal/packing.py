"""Weights of 4 and 8 bits in MLX's form: codes in words of 32 bits, and a scale and an offset for each group.

A weight is `scale * code + offset`, its code unsigned. A group is 32, 64 or 128 weights along the input of a product.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from triune.graph.packed import Packed, packed_of
from triune.graph.values import attributes_of
from triune.metal.library import Value, from_numpy, mx

_GROUPS = (128, 64, 32)
_BITS: Mapping[int, int] = {TensorProto.INT4: 4, TensorProto.UINT4: 4, TensorProto.INT8: 8, TensorProto.UINT8: 8}
_SIGNED = (TensorProto.INT4, TensorProto.INT8)

Tensors = Callable[[str], TensorProto | None]
"""Finds the initializer of a name."""

Reader = Callable[[TensorProto], NDArray[Any]]
"""Reads the elements of an initializer."""


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    """A matrix [out, in] in MLX's form.

    Attributes:
        words: UINT32 [out, in * bits / 32].
        scales: [out, in / group], in the type of the products.
        offsets: as the scales.
        group: weights in a group.
        bits: bits of a code, 4 or 8.
    """

    words: Value
    scales: Value
    offsets: Value
    group: int
    bits: int

    def product(self, x: Value) -> Value:
        """`x` [..., in] times the transpose of the matrix: [..., out]."""
        return mx.quantized_matmul(
            x, self.words, self.scales, self.offsets, transpose=True, group_size=self.group, bits=self.bits
        )


def quantized(
    name: str, makers: Mapping[str, NodeProto], tensors: Tensors, read: Reader, kind: Any
) -> Quantized | None:
    """The second operand of a MatMul, [in, out], if the graph has it as packed weights that MLX can multiply by.

    Args:
        name: the operand.
        makers: the nodes of the graph by their outputs.
        tensors: finds initializers.
        read: reads them.
        kind: the type of the scales.
    """
    node = makers.get(name)
    is_transposed = node is not None and node.op_type == "Transpose"
    if node is not None and node.op_type == "Transpose":
        if list(attributes_of(node).get("perm", [1, 0])) != [1, 0]:
            return None
        node = makers.get(node.input[0])
    if node is None:
        return None
    packed = _of_blocks(node, makers, tensors, read) or packed_of(node, lambda each: _loaded(tensors(each), read))
    if packed is None or packed.data.ndim != 2:
        return None
    return _in_words(packed if is_transposed else packed.transposed(1, 0), kind)


def _loaded(tensor: TensorProto | None, read: Reader) -> TensorProto | None:
    """The tensor with its elements in it."""
    if tensor is None or tensor.data_location != TensorProto.EXTERNAL:
        return tensor
    loaded = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    array = read(tensor)
    if tensor.data_type in (TensorProto.INT4, TensorProto.UINT4):
        codes = array.astype(np.int8).view(np.uint8).reshape(-1) & 15
        loaded.raw_data = (codes[0::2] | codes[1::2] << 4).tobytes()
    else:
        loaded.raw_data = array.tobytes()
    return loaded


def _of_blocks(node: NodeProto, makers: Mapping[str, NodeProto], tensors: Tensors, read: Reader) -> Packed | None:
    """The weights of Reshape(Mul(Sub(Cast(codes), zeros), scales)), whose zero points are no whole numbers.

    Codes are [out, blocks, size of a block], zero points and scales [out, blocks, 1].
    """
    chain: list[NodeProto | None] = [node]
    for _ in range(3):
        last = chain[-1]
        chain.append(makers.get(last.input[0]) if last is not None and last.input else None)
    if [each and each.op_type for each in chain] != ["Reshape", "Mul", "Sub", "Cast"]:
        return None
    _, scaled, shifted, cast = (each for each in chain if each is not None)
    codes, zeros, scales = (tensors(each) for each in (cast.input[0], shifted.input[1], scaled.input[1]))
    if codes is None or zeros is None or scales is None or codes.data_type not in _BITS or len(codes.dims) != 3:
        return None
    rows, blocks, size = codes.dims
    if [*zeros.dims] != [rows, blocks, 1] or [*scales.dims] != [rows, blocks, 1]:
        return None
    data = read(codes).reshape(rows, blocks * size)
    data = data.astype(np.int8 if codes.data_type in _SIGNED else np.uint8)
    return Packed(codes.data_type, data, read(scales).reshape(rows, blocks), read(zeros).reshape(rows, blocks))


def _in_words(packed: Packed, kind: Any) -> Quantized | None:
    """The weights [out, in]; None if MLX has no group of such blocks."""
    rows, columns = packed.data.shape
    scale = np.broadcast_to(packed.scale, (rows, packed.scale.shape[1]))
    block = columns // scale.shape[1]
    group = next((each for each in _GROUPS if block % each == 0), None)
    bits = _BITS[packed.elem_type]
    if group is None:
        return None
    codes = np.ascontiguousarray(packed.data).view(np.uint8)
    # Signed codes become unsigned by adding half of their range.
    lift = 1 << (bits - 1) if packed.elem_type in _SIGNED else 0
    zero = np.float32(lift) if packed.zero_point is None else packed.zero_point.astype(np.float32) + lift
    if bits == 4:
        codes = (codes & 15) ^ np.uint8(lift)
        codes = codes[:, 0::2] | codes[:, 1::2] << 4
    else:
        codes = codes ^ np.uint8(lift)
    wide = scale.astype(np.float32)
    scales, offsets = (
        from_numpy(np.repeat(each, block // group, axis=1)).astype(kind) for each in (wide, -wide * zero)
    )
    return Quantized(from_numpy(np.ascontiguousarray(codes).view(np.uint32)), scales, offsets, group, bits)
