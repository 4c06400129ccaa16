"""Unpack the blocks of ggml's packed forms. Source: the structures and the comments of ggml's ggml-common.h.

Each function takes blocks, UINT8 [blocks, bytes of a block], and returns codes [blocks, weights], scales and offsets
[blocks, scales of a block]. Products of scales are computed in FP32 and in ggml's order, so that the weights equal
ggml's bit for bit.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np

from triune.core.datatypes import Array
from triune.engine.weights.affine import Affine
from triune.engine.weights.tensors import Bits

Parts: TypeAlias = tuple[Array, Array, Array | None]
"""Codes [blocks, weights of a block], and scales and offsets [blocks, scales of a block]. The offsets are None if the
form has none.
"""

_Q4_0: Final = np.dtype([("d", "<f2"), ("qs", "u1", 16)])
_Q4_1: Final = np.dtype([("d", "<f2"), ("m", "<f2"), ("qs", "u1", 16)])
_Q5_0: Final = np.dtype([("d", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])
_Q5_1: Final = np.dtype([("d", "<f2"), ("m", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])
_Q8_0: Final = np.dtype([("d", "<f2"), ("qs", "i1", 32)])
_Q2_K: Final = np.dtype([("scales", "u1", 16), ("qs", "u1", 64), ("d", "<f2"), ("dmin", "<f2")])
_Q3_K: Final = np.dtype([("hmask", "u1", 32), ("qs", "u1", 64), ("scales", "u1", 12), ("d", "<f2")])
_Q4_K: Final = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qs", "u1", 128)])
_Q5_K: Final = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qh", "u1", 32), ("qs", "u1", 128)])
_Q6_K: Final = np.dtype([("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), ("d", "<f2")])
_IQ4_XS: Final = np.dtype([("d", "<f2"), ("scales_h", "u1", 2), ("scales_l", "u1", 4), ("qs", "u1", 128)])

_IQ4_VALUES: Final = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int8)
"""The numbers that the codes 0 to 15 of IQ4_NL and IQ4_XS stand for, which lie closer together near 0."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """How the blocks of a form are unpacked.

    Attributes:
        take: the function that unpacks the blocks.
        bits: 4 if the codes fit into 4 bits, else 8.
        block_size: the number of weights that share a scale.
    """

    take: Callable[[Array], Parts]
    bits: Bits
    block_size: int

    def affine(self, rows: Array, block_bytes: int) -> Affine:
        """Unpack rows, UINT8 [rows, bytes of a row], which consist of blocks of `block_bytes` bytes, to codes, scales
        and offsets.
        """
        num_rows = len(rows)
        # numpy shall not warn of scales that are NaN or infinite, which a damaged file may have: `make_tensor` refuses
        # them later.
        with np.errstate(invalid="ignore", over="ignore"):
            codes, scales, offsets = self.take(np.ascontiguousarray(rows).reshape(-1, block_bytes))
        return Affine(
            codes.reshape(num_rows, -1),
            self.bits,
            scales.reshape(num_rows, -1),
            None if offsets is None else offsets.reshape(num_rows, -1),
            self.block_size,
        )


def _q4_0(blocks: Array) -> Parts:
    fields = _fields(blocks, _Q4_0)
    return _lowered(_spread(fields["qs"], 16, 4), 8), fields["d"], None


def _q4_1(blocks: Array) -> Parts:
    fields = _fields(blocks, _Q4_1)
    return _spread(fields["qs"], 16, 4), fields["d"], _f32(fields["m"])


def _q5_0(blocks: Array) -> Parts:
    fields = _fields(blocks, _Q5_0)
    return _lowered(_five_bits(fields), 16), fields["d"], None


def _q5_1(blocks: Array) -> Parts:
    fields = _fields(blocks, _Q5_1)
    return _five_bits(fields), fields["d"], _f32(fields["m"])


def _q8_0(blocks: Array) -> Parts:
    fields = _fields(blocks, _Q8_0)
    return fields["qs"], fields["d"], None


def _q2_k(blocks: Array) -> Parts:
    fields = _fields(blocks, _Q2_K)
    scales = _column(fields["d"]) * _f32(fields["scales"] & 15)
    offsets = -(_column(fields["dmin"]) * _f32(fields["scales"] >> 4))
    return _spread(fields["qs"], 32, 2), scales, offsets


def _q3_k(blocks: Array) -> Parts:
    fields = _fields(blocks, _Q3_K)
    # There are sixteen scales of six bits: the first eight bytes have the low four bits of each, the other four bytes
    # the high two.
    low = _spread(fields["scales"][:, :8], 8, 4)
    high = _spread(fields["scales"][:, 8:], 4, 2)
    scales = _column(fields["d"]) * _f32(_lowered(low | high << 4, 32))
    return _lowered(_spread(fields["qs"], 32, 2) | _spread(fields["hmask"], 32, 1) << 2, 4), scales, None


def _q4_k(blocks: Array) -> Parts:
    fields = _fields(blocks, _Q4_K)
    return _spread(fields["qs"], 32, 4), *_six_bit_scales(fields)


def _q5_k(blocks: Array) -> Parts:
    fields = _fields(blocks, _Q5_K)
    return _spread(fields["qs"], 32, 4) | _spread(fields["qh"], 32, 1) << 4, *_six_bit_scales(fields)


def _q6_k(blocks: Array) -> Parts:
    fields = _fields(blocks, _Q6_K)
    codes = _spread(fields["ql"], 64, 4) | _spread(fields["qh"], 32, 2) << 4
    return _lowered(codes, 32), _column(fields["d"]) * _f32(fields["scales"]), None


def _iq4_nl(blocks: Array) -> Parts:
    fields = _fields(blocks, _Q4_0)
    return _IQ4_VALUES[_spread(fields["qs"], 16, 4)], fields["d"], None


def _iq4_xs(blocks: Array) -> Parts:
    fields = _fields(blocks, _IQ4_XS)
    # A scale has six bits: the low four are half a byte of `scales_l`, the high two a quarter of a byte of `scales_h`.
    low = _spread(fields["scales_l"], 1, 4)
    high = _spread(fields["scales_h"], 1, 2)
    scales = _column(fields["d"]) * _f32(_lowered(low | high << 4, 32))
    return _IQ4_VALUES[_spread(fields["qs"], 16, 4)], scales, None


BLOCKS: Final[Mapping[str, Blocks]] = {
    "Q4_0": Blocks(_q4_0, 4, 32),
    "Q4_1": Blocks(_q4_1, 4, 32),
    "Q5_0": Blocks(_q5_0, 8, 32),
    "Q5_1": Blocks(_q5_1, 8, 32),
    "Q8_0": Blocks(_q8_0, 8, 32),
    "Q2_K": Blocks(_q2_k, 4, 16),
    "Q3_K": Blocks(_q3_k, 4, 16),
    "Q4_K": Blocks(_q4_k, 4, 32),
    "Q5_K": Blocks(_q5_k, 8, 32),
    "Q6_K": Blocks(_q6_k, 8, 16),
    "IQ4_NL": Blocks(_iq4_nl, 8, 32),
    "IQ4_XS": Blocks(_iq4_xs, 8, 32),
}
"""How the blocks of each form are unpacked, by the name of the form."""


def _fields(blocks: Array, layout: np.dtype[Any]) -> Array:
    return blocks.view(layout)[:, 0]


def _spread(packed: Array, width: int, bits: int) -> Array:
    """Unpack the numbers of `bits` bits in UINT8 [blocks, bytes].

    For each `width` bytes, first come the numbers in the lowest bits of all these bytes, then those in the next bits.
    """
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, np.newaxis]
    parts = packed.reshape(len(packed), -1, 1, width) >> shifts
    return (parts & np.uint8((1 << bits) - 1)).reshape(len(packed), -1)


def _lowered(numbers: Array, by: int) -> Array:
    """Subtract `by` from UINT8 numbers under 128, as INT8."""
    return numbers.view(np.int8) - np.int8(by)


def _five_bits(fields: Array) -> Array:
    """Codes of five bits, UINT8 [blocks, 32]: the low four bits of code i are in the field `qs`, its fifth bit is bit i
    of the field `qh`.
    """
    high = np.unpackbits(fields["qh"], axis=1, bitorder="little")
    return _spread(fields["qs"], 16, 4) | high << 4


def _six_bit_scales(fields: Array) -> tuple[Array, Array]:
    """Eight scales and eight offsets of Q4_K and Q5_K, of six bits each, in twelve bytes.

    The first four bytes are a, the next four b, the last four c. Scales 0 to 3 are the low six bits of the bytes of a,
    offsets 0 to 3 those of b. Scales 4 to 7 have the low four bits of the bytes of c as low bits, and the high two bits
    of a as high bits; offsets 4 to 7 have the high four bits of c as low bits, and the high two bits of b as high bits.

    Returns both as FP32 [blocks, 8]: the scales times the block's `d`, and the offsets times minus its `dmin`.
    """
    a, b, c = np.split(fields["scales"], 3, axis=1)
    scales = np.concatenate([a & 63, c & 15 | a >> 6 << 4], axis=1)
    minimums = np.concatenate([b & 63, c >> 4 | b >> 6 << 4], axis=1)
    return _column(fields["d"]) * _f32(scales), -(_column(fields["dmin"]) * _f32(minimums))


def _column(numbers: Array) -> Array:
    return _f32(numbers)[:, np.newaxis]


def _f32(numbers: Array) -> Array:
    return numbers.astype(np.float32)
