"""Weights of 4 bits in the form of ONNX Runtime's MatMulNBits."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from triune.graph.packed import Packed

_MIDDLE = 8


@dataclass(frozen=True, slots=True, eq=False)
class NBits:
    """The operands of MatMulNBits, for a weight [K, N] in groups along K. The last group may be shorter.

    Attributes:
        blocks: uint8 [N, groups, bytes]: two levels in a byte, the lower one first. Without zero points level 8 is 0.
        scales: the scales, [N * groups].
        zeros: uint8 [N * bytes]: the zero points of each column, two in a byte; None if there are none.
        whole: the dequantized weight, [K, N].
    """

    blocks: NDArray[np.uint8]
    scales: NDArray[Any]
    zeros: NDArray[np.uint8] | None
    whole: NDArray[Any]


def padded_rows(weight: NDArray[Any], group: int) -> NDArray[Any]:
    """Transpose a weight [K, N] to rows [N, groups * group], padded with zeros, which change no scale."""
    size, count = weight.shape
    rows = np.zeros((count, -(-size // group) * group), weight.dtype)
    rows[:, :size] = weight.T
    return rows


def matmul_n_bits(packed: Packed, size: int) -> NBits:
    """Bring a quantized weight to the form of MatMulNBits (com.microsoft, ONNX Runtime's contrib ops).

    Args:
        packed: 4-bit integers [N, K], where K is padded to whole groups, with a scale for each group of a row.
        size: K without the padding.
    """
    num_groups = packed.scale.shape[1]
    count, columns = packed.data.shape
    levels = packed.data.astype(np.int16)
    zeros: NDArray[np.uint8] | None = None
    if packed.elem_type == TensorProto.INT4:
        levels = levels + _MIDDLE
    elif packed.zero_point is None:
        # Write zero points of 0: without any, MatMulNBits would take level 8 for 0.
        zeros = np.zeros((count, (num_groups + 1) // 2), np.uint8)
    else:
        zeros = _pairs(_even(packed.zero_point))
    blocks = _pairs(levels.astype(np.uint8)).reshape(count, num_groups, columns // num_groups // 2)
    whole = np.ascontiguousarray(packed.whole()[:, :size].T)
    return NBits(blocks, packed.scale.reshape(-1), None if zeros is None else zeros.reshape(-1), whole)


def _even(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Pad values [N, groups] to an even number of groups."""
    return np.pad(values.astype(np.uint8), ((0, 0), (0, values.shape[1] % 2)))


def _pairs(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pack pairs of 4-bit levels along the last axis into bytes, the first level in the lower bits."""
    return levels[..., 0::2] | (levels[..., 1::2] << np.uint8(4))
