"""Weights of 4 and 8 bits in MLX's form: codes in words of 32 bits, and a scale and an offset for each group.

A weight is `scale * code + offset`, where the code is unsigned. A group is 32, 64 or 128 weights along the input of a
product.

On NVIDIA's GPUs, MLX multiplies several rows by packed weights more slowly than by weights of 16 bits, although it then
reads more bytes: for an LLM of 1.1 billion weights, 32 rows take 7.0 ms on an H200. So if the GPU has enough memory,
large weights are kept a second time, in 16 bits.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from triune.graph.packed import Packed
from triune.graph.values import attributes_of
from triune.metal.library import Value, from_numpy, mx
from triune.metal.nvidia import is_nvidia

_GROUPS = (128, 64, 32)
_BITS: Mapping[int, int] = {TensorProto.INT4: 4, TensorProto.UINT4: 4, TensorProto.INT8: 8, TensorProto.UINT8: 8}
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
_SIGNED = (TensorProto.INT4, TensorProto.INT8)

FEWEST_ROWS: Final = 8
"""The fewest rows of a product for which `Quantized.matrix` is used. MLX has a faster kernel for fewer rows."""

FEWEST_WEIGHTS: Final = 1 << 21
"""The fewest weights for which `Quantized.matrix` is made. For smaller ones the GPU gains less time than the CPU needs
more: MLX starts a product of 16-bit matrices through cuBLAS, which costs the CPU more than a kernel of MLX.
"""

_SHARE_OF_FREE: Final = 4
"""Copies in 16 bits take at most the free memory of the GPU divided by this."""

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
        offsets: in the shape and type of the scales.
        group: the number of weights in a group.
        bits: the number of bits of a code, 4 or 8.
        matrix: the same weights [in, out] in the type of the products, for products of at least `FEWEST_ROWS` rows;
            None if there is no such copy.
    """

    words: Value
    scales: Value
    offsets: Value
    group: int
    bits: int
    matrix: Value | None = None

    def product(self, x: Value) -> Value:
        """`x` [..., in] times the transpose of the matrix: [..., out]."""
        if self.matrix is not None and x.dtype == self.matrix.dtype and math.prod(x.shape[:-1]) >= FEWEST_ROWS:
            return mx.matmul(x, self.matrix)
        return mx.quantized_matmul(
            x, self.words, self.scales, self.offsets, transpose=True, group_size=self.group, bits=self.bits
        )

    @property
    def num_weights(self) -> int:
        """The number of weights."""
        return self.scales.size * self.group

    def with_matrix(self) -> "Quantized":
        """Make a copy that has the weights also in the type of the scales."""
        weights = mx.dequantize(self.words, self.scales, self.offsets, group_size=self.group, bits=self.bits)
        matrix = mx.transpose(weights)
        # Evaluate the weights now. Otherwise a compiled function would compute them in each of its calls.
        mx.eval(matrix)
        return replace(self, matrix=matrix)


def with_matrices(packed: Mapping[str, Quantized]) -> dict[str, Quantized]:
    """Add copies in 16 bits (`Quantized.matrix`) to large weights, if MLX computes in 16 bits on a GPU of NVIDIA that
    has enough free memory for all of them.
    """
    if not is_nvidia():
        return dict(packed)
    narrow = mx.bfloat16, mx.float16
    large = {
        name: each
        for name, each in packed.items()
        if each.num_weights >= FEWEST_WEIGHTS and each.scales.dtype in narrow
    }
    num_bytes = sum(each.num_weights * each.scales.dtype.size for each in large.values())
    if num_bytes > mx.device_info()["free_memory"] // _SHARE_OF_FREE:
        return dict(packed)
    return {**packed, **{name: each.with_matrix() for name, each in large.items()}}


def quantized(
    name: str, makers: Mapping[str, NodeProto], tensors: Tensors, read: Reader, kind: Any
) -> Quantized | None:
    """Return the second operand [in, out] of a MatMul in MLX's form, if the graph has it as quantized weights that MLX
    supports; else None.

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
    packed = _of_blocks(node, makers, tensors, read) or _of_dequantize(node, tensors, read)
    return None if packed is None else _in_words(packed if is_transposed else packed.transposed(1, 0), kind)


def _of_dequantize(node: NodeProto, tensors: Tensors, read: Reader) -> Packed | None:
    """The weights of a DequantizeLinear of a constant matrix.

    Unlike `graph.packed.packed_of`, this reads the elements of each tensor only once.
    """
    operands = [tensors(name) for name in node.input if name]
    data, scale, zero = (*operands, None)[:3] if len(operands) > 1 else (None, None, None)
    if node.op_type != "DequantizeLinear" or data is None or scale is None or None in operands:
        return None
    attributes = attributes_of(node)
    if data.data_type not in _BITS or scale.data_type not in _FLOATS or len(data.dims) != 2 or 0 in data.dims:
        return None
    if attributes.get("output_dtype", 0) not in (0, scale.data_type):
        return None
    axis, block = int(attributes.get("axis", 1)) % 2, int(attributes.get("block_size", 0))
    shape = [*scale.dims]
    if not block:
        shape = [1, 1] if shape in ([], [1]) else [data.dims[0], 1] if axis == 0 else [1, data.dims[1]]
    if len(shape) != 2 or any(size % count for size, count in zip(data.dims, shape, strict=True)):
        return None
    zeros = None if zero is None else read(zero).reshape(shape).astype(np.int16)
    return Packed(data.data_type, _in_bytes(data, read), read(scale).reshape(shape), zeros)


def _in_bytes(codes: TensorProto, read: Reader) -> NDArray[Any]:
    return read(codes).astype(np.int8 if codes.data_type in _SIGNED else np.uint8, copy=False)


def _of_blocks(node: NodeProto, makers: Mapping[str, NodeProto], tensors: Tensors, read: Reader) -> Packed | None:
    """The weights of Reshape(Mul(Sub(Cast(codes), zeros), scales)), whose zero points are not integers.

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
    data = _in_bytes(codes, read).reshape(rows, blocks * size)
    return Packed(codes.data_type, data, read(scales).reshape(rows, blocks), read(zeros).reshape(rows, blocks))


def _in_words(packed: Packed, kind: Any) -> Quantized | None:
    """Packed weights (out, in) as 32-bit words for MLX; None if no group size of MLX divides their blocks."""
    rows, columns = packed.data.shape
    if packed.scale.shape[0] not in (1, rows):
        return None
    block = columns // packed.scale.shape[1]
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
    wide = packed.scale.astype(np.float32)
    scales, offsets = (
        from_numpy(np.broadcast_to(np.repeat(each, block // group, axis=1), (rows, columns // group))).astype(kind)
        for each in (wide, -wide * zero)
    )
    return Quantized(from_numpy(np.ascontiguousarray(codes).view(np.uint32)), scales, offsets, group, bits)
