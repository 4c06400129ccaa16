"""The ways in which the elements of a tensor may leave the range of fp16."""

from enum import Enum, auto

from onnx import TensorProto

from triune.graph.half.intervals import magnitude
from triune.graph.half.limits import LARGEST, SMALLEST_INVERTED


class Range(Enum):
    """One way in which the elements of a tensor may leave the range of fp16."""

    GUARDED = auto()
    """Kept above 0 by a constant that is 0 in fp16: x + 1e-12."""
    TINY = auto()
    """All elements are near 0: x * 1e-9."""
    LARGE = auto()
    """Beyond 65504: exponentials, x * 1e9."""
    SQUARE = auto()
    """Beyond 65504, as squares of numbers within fp16 may be."""
    INVERSE = auto()
    """Beyond 65504, as 1 / x of a GUARDED x may be."""
    SUM = auto()
    """Beyond 65504, as sums of many numbers may be."""
    INTEGER = auto()
    """Beyond 65504, as the sums in a product of quantized matrices may be, which scales bring back."""
    SETTLED = auto()
    """Within fp16, but computed in fp32 by a node that compilers fuse with the next: 1 / sqrt(x) is one operation."""


Ranges = frozenset[Range]
NONE: Ranges = frozenset()
"""Within fp16."""

HIGH = frozenset([Range.LARGE, Range.SQUARE, Range.INVERSE, Range.SUM, Range.INTEGER])
"""Beyond the largest number of fp16."""

LOW = frozenset([Range.GUARDED, Range.TINY])
"""Below the smallest number of fp16."""

WIDE_INTEGERS = (
    *(TensorProto.INT32, TensorProto.INT64),
    *(TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64),
)
"""Types of whole numbers that fp16 does not hold."""


def within(ranges: Ranges, interval: tuple[float, float]) -> Ranges:
    """The ranges that are possible for values within an interval."""
    if magnitude(interval) <= LARGEST:
        ranges = ranges - HIGH
    if interval[0] >= SMALLEST_INVERTED or interval[1] <= -SMALLEST_INVERTED:
        ranges = ranges - LOW
    return ranges
