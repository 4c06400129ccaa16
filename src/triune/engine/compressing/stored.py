"""The stored form of a matrix: codes with scales and offsets in MLX's layout, or floats of fewer bits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from triune.compression.gptq import gptq, rounded
from triune.compression.integers import quantized
from triune.compression.moments import Moments
from triune.compression.options import GROUPS, WeightForm
from triune.engine.weights.tensors import Bits

_AT_ONCE = 1 << 22
"""How many weights are rounded to their nearest levels at once, since that takes several arrays of this size."""

_BITS: dict[WeightForm, Bits] = {WeightForm.INT4: 4, WeightForm.INT8: 8}


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """A matrix [out, in] of weights `code * scale + offset`.

    Attributes:
        codes: UINT8 [out, in].
        bits: the number of bits of a code.
        scales: FP16 [out, in / group].
        offsets: FP16 [out, in / group].
        group: how many weights of a row share a scale.
    """

    codes: NDArray[np.uint8]
    bits: Bits
    scales: NDArray[np.float16]
    offsets: NDArray[np.float16]
    group: int

    def whole(self) -> NDArray[np.float32]:
        """The weights as FP32 [out, in], dequantized as the engine does it."""
        rows, columns = self.codes.shape
        values = self.codes.reshape(rows, -1, self.group).astype(np.float32)
        values *= self.scales.astype(np.float32)[..., np.newaxis]
        values += self.offsets.astype(np.float32)[..., np.newaxis]
        return values.reshape(rows, columns)

    def divided(self, factors: NDArray[np.float32]) -> "Codes":
        """The same codes with scales that make of each row that row divided by its factor; `factors` [out]."""
        scales, offsets = (
            (each.astype(np.float32) / factors[:, np.newaxis]).astype(np.float16)
            for each in (self.scales, self.offsets)
        )
        return replace(self, scales=scales, offsets=offsets)


@dataclass(frozen=True, slots=True, eq=False)
class Floats:
    """A matrix of FP32, FP16 or BF16."""

    values: NDArray[Any]

    def whole(self) -> NDArray[np.float32]:
        """The weights as FP32 [out, in]."""
        return self.values.astype(np.float32)

    def divided(self, factors: NDArray[np.float32]) -> "Floats":
        """The matrix with each row divided by its factor; `factors` [out]."""
        return Floats((self.whole() / factors[:, np.newaxis]).astype(self.values.dtype))


Stored: TypeAlias = Codes | Floats


def group_of(group: int | None, columns: int) -> tuple[int, str]:
    """Choose the group size for rows of `columns` weights. `group` is the requested size; None for one group a row.
    Returns the size, and a note if it is not the requested one.
    """
    if group is None:
        return columns, ""
    if columns % group == 0:
        return group, ""
    smaller = next((each for each in reversed(GROUPS) if each < group and columns % each == 0), None)
    if smaller is None:
        return columns, f"a scale for each channel: no group of {group} or fewer divides its {columns} input channels"
    return smaller, f"groups of {smaller}: {group} does not divide its {columns} input channels"


def stored(
    weight: NDArray[np.float32], form: WeightForm, group: int, moments: Moments | None, *, is_symmetric: bool
) -> Stored:
    """Store a matrix [out, in] in a form.

    Args:
        weight: the matrix.
        form: INT4, INT8, FP16, BF16 or FP32.
        group: how many weights of a row share a scale.
        moments: the moments of the inputs, by which GPTQ rounds; None rounds to the nearest level.
        is_symmetric: whether the levels lie around 0. Otherwise they lie between the smallest and the largest weight of
            a group.
    """
    bits = _BITS.get(form)
    num_rows = max(1, _AT_ONCE // weight.shape[1])
    if bits is not None and moments is None and len(weight) > num_rows:
        rows = [weight[begin : begin + num_rows] for begin in range(0, len(weight), num_rows)]
        return _joined([stored(each, form, group, None, is_symmetric=is_symmetric) for each in rows])
    if bits is None:
        return Floats(weight.astype(_FLOATS[form]))
    if not is_symmetric:
        return _with_offsets(weight, bits, group, moments)
    if moments is None:
        packed = quantized(weight, bits, axis=None, block_axis=1, block=group, scale_type=np.float16)
    else:
        packed = gptq(weight, moments, bits, group, is_symmetric=True, scale_type=np.float16)
    # MLX's codes are unsigned, so the codes are raised by `middle`, and the offset is -middle * scale. That is exact in
    # FP16, since `middle` is a power of two.
    middle = 1 << (bits - 1)
    scales = packed.scale.astype(np.float16)
    codes = (packed.data.astype(np.int16) + middle).astype(np.uint8)
    return Codes(codes, bits, scales, (-middle * scales.astype(np.float32)).astype(np.float16), group)


_FLOATS = {WeightForm.FP32: np.float32, WeightForm.FP16: np.float16, WeightForm.BF16: ml_dtypes.bfloat16}


def _joined(parts: Sequence[Stored]) -> Codes:
    """The rows of several matrices of one form as one matrix."""
    every = [each for each in parts if isinstance(each, Codes)]
    return replace(
        every[0],
        codes=np.concatenate([each.codes for each in every]),
        scales=np.concatenate([each.scales for each in every]),
        offsets=np.concatenate([each.offsets for each in every]),
    )


def _with_offsets(weight: NDArray[np.float32], bits: Bits, group: int, moments: Moments | None) -> Codes:
    """Quantize a matrix [out, in] to `scale * code + offset`. The offset is a group's smallest weight, and the highest
    code gives its largest weight. MLX's layout stores the offset as a float, whereas ONNX's zero point must be an
    integer. Weights that have this form already (GGUF's Q4_1, in groups of 32 or fewer) lose nothing.

    With `moments`, GPTQ's codes are returned if they give smaller errors of the layer's outputs than rounding to
    nearest.
    """
    most = (1 << bits) - 1
    blocks = weight.reshape(len(weight), -1, group)
    limits = np.finfo(np.float16)
    offsets = np.clip(blocks.min(axis=2), limits.min, limits.max).astype(np.float16)
    spans = blocks.max(axis=2) / np.float32(most) - offsets.astype(np.float32) / np.float32(most)
    # A scale must not be 0. Where all weights of a group are equal, all codes are 0, so that any scale will do.
    scales = np.clip(spans, limits.smallest_normal, limits.max).astype(np.float16)
    steps, lows = scales.astype(np.float32), offsets.astype(np.float32)
    codes = blocks - lows[..., np.newaxis]
    codes /= steps[..., np.newaxis]
    np.rint(codes, out=codes)
    nearest = Codes(np.clip(codes, 0, most).astype(np.uint8).reshape(weight.shape), bits, scales, offsets, group)
    if moments is None:
        return nearest
    levels = rounded(weight, steps, -lows / steps, moments, (0, most))
    if levels is None:
        return nearest
    found = Codes(levels.astype(np.uint8), bits, scales, offsets, group)
    return found if moments.error(found.whole() - weight) <= moments.error(nearest.whole() - weight) else nearest
