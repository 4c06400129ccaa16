"""The ways in which the elements of a tensor may be outside fp16's range."""

from enum import Enum, auto

from onnx import TensorProto

from triune.graph.half.intervals import magnitude
from triune.graph.half.limits import LARGEST, SMALLEST_INVERTED


class Range(Enum):
    """One way in which the elements of a tensor may be outside fp16's range."""

    GUARDED = auto()
    """Elements are above 0 only because of a constant that fp16 rounds to 0, as those of x + 1e-12."""
    TINY = auto()
    """All elements are near 0, as those of x * 1e-9."""
    LARGE = auto()
    """Beyond 65504, as exponentials and x * 1e9 may be."""
    SQUARE = auto()
    """Beyond 65504, as squares of numbers within fp16 may be."""
    INVERSE = auto()
    """Beyond 65504, as 1 / (x + 1e-12) may be."""
    SUM = auto()
    """Beyond 65504, as sums of many numbers may be."""
    INTEGER = auto()
    """Beyond 65504, as a product of quantized matrices may be until it is multiplied by their scales."""
    SETTLED = auto()
    """Within fp16's range, but computed by a node in fp32. If compilers fuse that node with the next one, as Sqrt and
    Reciprocal, the next one computes in fp32, too.
    """


Ranges = frozenset[Range]
NONE: Ranges = frozenset()
"""All elements are within fp16's range."""

HIGH = frozenset([Range.LARGE, Range.SQUARE, Range.INVERSE, Range.SUM, Range.INTEGER])
"""Ranges above fp16's largest number."""

LOW = frozenset([Range.GUARDED, Range.TINY])
"""Ranges below fp16's smallest number."""

WIDE_INTEGERS = (
    *(TensorProto.INT32, TensorProto.INT64),
    *(TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64),
)
"""Integer types with numbers that are beyond fp16."""


def within(ranges: Ranges, interval: tuple[float, float]) -> Ranges:
    """The ranges among `ranges` that values in an interval can have."""
    if magnitude(interval) <= LARGEST:
        ranges = ranges - HIGH
    if interval[0] >= SMALLEST_INVERTED or interval[1] <= -SMALLEST_INVERTED:
        ranges = ranges - LOW
    return ranges
