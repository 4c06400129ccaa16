"""Weights in memory: dense ones, and packed ones that are small integers with a scale for each block."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final, Literal, TypeAlias

import numpy as np

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError

Bits: TypeAlias = Literal[4, 8]

_LOW_NIBBLE: Final = np.uint8(0x0F)


@dataclass(frozen=True, slots=True)
class Regrouped:
    """The error of a weight whose file format was converted to codes, scales and zero points, which cannot represent it
    exactly.

    Attributes:
        form: the name of the form in the file: "Q4_1".
        largest: the largest absolute difference between a weight and the file's weight.
        rms: the root of the mean square of the differences.
        relative_rms: `rms` over the root of the mean square of the weights; 0 if all weights are 0.
    """

    form: str
    largest: float
    rms: float
    relative_rms: float

    def __str__(self) -> str:
        return f"{self.form} regrouped: largest error {self.largest:.3g}, RMS {self.rms:.3g} ({self.relative_rms:.3%})"


@dataclass(frozen=True)
class DenseTensor:
    """A weight of any rank.

    Attributes:
        values: FP32, FP16 or BF16 (`ml_dtypes.bfloat16`); read-only, often a view of the file.
        form: the name of the form in the file: "F32", "Q4_K". If the file has packed weights, `values` were computed
            from them, in FP32.
    """

    values: Array = field(repr=False)
    form: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the weight's dimensions."""
        return self.values.shape

    def dequantize(self) -> Array:
        """The weights as FP32: `values` themselves if they are FP32 already."""
        return self.values.astype(np.float32, copy=False)


class Placeholder(DenseTensor):
    """A weight of which only the shape is wanted, to write a graph. Its values are zeros, for which the system gives no
    memory as long as nobody writes to them.
    """


@dataclass(frozen=True)
class PackedTensor:
    """A matrix of small integers with a scale, and maybe a zero point or an offset, for each block of a row.

    A weight is `(code - zero point) * scale`, which is what ONNX's DequantizeLinear computes with `axis` 1 and
    `block_size`, or `code * scale + offset`, as MLX's quantized products take it. With neither zero points nor offsets
    the codes are signed (INT4, INT8); else unsigned (UINT4, UINT8).

    Attributes:
        codes: [out, in * bits / 8] bytes. With 4 bits two codes share a byte, the earlier one in the lower half, as
            ONNX packs INT4 and UINT4. Read-only.
        bits: the bits of a code.
        scales: FP32 or FP16 [out, in / block_size].
        zero_points: UINT8 [out, in / block_size], each of them a code (0 to 15 with 4 bits); None if there are none.
        block_size: the number of codes of a row that share a scale. It divides `in`.
        form: the name of the form in the file: "Q4_0".
        regrouped: the difference to the file's weights; None if the weights are exactly the file's.
        offsets: FP32 [out, in / block_size]; only of a checkpoint that was opened with `inexact="offsets"`, and never
            beside zero points.
    """

    codes: Array = field(repr=False)
    bits: Bits
    scales: Array = field(repr=False)
    zero_points: Array | None = field(repr=False)
    block_size: int
    form: str
    regrouped: Regrouped | None = None
    offsets: Array | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        rows, row_bytes = self.codes.shape
        columns = row_bytes * 8 // self.bits
        blocks = (rows, columns // self.block_size)
        numbers = {"scales": self.scales, "zero points": self.zero_points, "offsets": self.offsets}
        shapes = {what: list(each.shape) for what, each in numbers.items() if each is not None}
        is_twice = self.zero_points is not None and self.offsets is not None
        is_other = any(shape != list(blocks) for shape in shapes.values())
        if self.codes.dtype != np.uint8 or columns % self.block_size or is_other or is_twice:
            raise InvalidArgumentError(
                f"a packed tensor of codes {self.codes.dtype}{list(self.codes.shape)} of {self.bits} bits in blocks of "
                f"{self.block_size} needs scales {list(blocks)}, and zero points or offsets of that shape, or neither; "
                f"it has {shapes}"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """The shape [out, in] of the matrix."""
        rows, row_bytes = self.codes.shape
        return rows, row_bytes * 8 // self.bits

    @property
    def is_signed(self) -> bool:
        """Whether the codes are INT4 or INT8, rather than UINT4 or UINT8."""
        return self.zero_points is None and self.offsets is None

    @property
    def values(self) -> Array:
        """The codes one by one: INT8 or UINT8 [out, in]. Computed at each call."""
        if self.bits == 8:
            return self.codes.view(np.int8) if self.is_signed else self.codes
        values = unpack_nibbles(self.codes)
        # A shift up and back down copies the sign bit of the 4-bit number to the four bits above it.
        return (values << 4).view(np.int8) >> 4 if self.is_signed else values

    @cached_property
    def packed_zero_points(self) -> Array | None:
        """The zero points as ONNX keeps them: flat, and with 4 bits two in a byte (the last half may be unused)."""
        if self.zero_points is None or self.bits == 8:
            return self.zero_points
        flat = self.zero_points.reshape(-1)
        return pack_nibbles(np.append(flat, np.uint8(0)) if flat.size % 2 else flat)

    def dequantize(self) -> Array:
        """The weights as FP32 [out, in]."""
        rows, columns = self.shape
        blocks = self.values.reshape(rows, columns // self.block_size, self.block_size).astype(np.float32)
        if self.zero_points is not None:
            blocks -= self.zero_points[..., np.newaxis]
        blocks *= self.scales[..., np.newaxis].astype(np.float32)
        if self.offsets is not None:
            blocks += self.offsets[..., np.newaxis]
        return blocks.reshape(rows, columns)


def pack_nibbles(values: Array) -> Array:
    """Pack numbers under 16, UINT8 [..., n], two in a byte: UINT8 [..., n / 2]. The earlier of two is in the lower
    half.
    """
    return values[..., 0::2] | (values[..., 1::2] << np.uint8(4))


def unpack_nibbles(packed: Array) -> Array:
    """Unpack the two numbers under 16 in each byte of UINT8 [..., n]: UINT8 [..., 2 * n]. The inverse of
    `pack_nibbles`.
    """
    values = np.empty((*packed.shape[:-1], packed.shape[-1] * 2), np.uint8)
    np.bitwise_and(packed, _LOW_NIBBLE, out=values[..., 0::2])
    np.right_shift(packed, np.uint8(4), out=values[..., 1::2])
    return values


Tensor: TypeAlias = DenseTensor | PackedTensor


def joined_rows(tensors: Sequence[Tensor]) -> Tensor | None:
    """The rows of several matrices [out, in] as one matrix; None if they are of different forms or widths, or
    placeholders.
    """
    first = tensors[0]
    if any(isinstance(each, Placeholder) for each in tensors):
        return None
    if isinstance(first, DenseTensor):
        dense = [each for each in tensors if isinstance(each, DenseTensor)]
        is_same = len({(each.values.dtype, each.shape[1:]) for each in dense}) == 1
        if len(dense) != len(tensors) or not is_same:
            return None
        return DenseTensor(np.concatenate([each.values for each in dense]), first.form)
    packed = [each for each in tensors if isinstance(each, PackedTensor)]
    if len(packed) != len(tensors) or len({_layout(each) for each in packed}) > 1:
        return None

    def joined(parts: Sequence[Array | None]) -> Array | None:
        present = [each for each in parts if each is not None]
        return np.concatenate(present) if present else None

    return replace(
        first,
        codes=np.concatenate([each.codes for each in packed]),
        scales=np.concatenate([each.scales for each in packed]),
        zero_points=joined([each.zero_points for each in packed]),
        offsets=joined([each.offsets for each in packed]),
    )


def _layout(tensor: PackedTensor) -> tuple[object, ...]:
    """The properties that two tensors must share so that their rows can be joined."""
    is_present = tensor.zero_points is not None, tensor.offsets is not None
    return tensor.shape[1], tensor.bits, tensor.block_size, tensor.scales.dtype, is_present
