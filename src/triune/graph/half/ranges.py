"""In which ways the values of a tensor may be beyond fp16."""

from enum import Enum, auto

from onnx import TensorProto

from triune.graph.half.intervals import magnitude
from triune.graph.half.limits import LARGEST, SMALLEST_INVERTED


class Range(Enum):
    """In which way the values of a tensor may be beyond fp16."""

    GUARDED = auto()
    """Above 0, by a number so small that fp16 has it not: x + 1e-12."""
    TINY = auto()
    """All of it small: x * 1e-9."""
    LARGE = auto()
    """Beyond 65504: exponentials, x * 1e9."""
    SQUARE = auto()
    """Beyond 65504, as squares of numbers within fp16 are."""
    INVERSE = auto()
    """Beyond 65504, as the inverse of a guarded number may be."""
    SUM = auto()
    """Beyond 65504 perhaps, as sums of many numbers are."""
    WHOLE = auto()
    """Beyond 65504, as sums of products of whole numbers are, which scales bring back."""
    SETTLED = auto()
    """Within fp16, but made in fp32 by a node that compilers join with the next: 1 / sqrt(x) is one operation."""


Ranges = frozenset[Range]
NONE: Ranges = frozenset()
"""None of them."""

HIGH = frozenset([Range.LARGE, Range.SQUARE, Range.INVERSE, Range.SUM, Range.WHOLE])
"""Beyond its largest number."""

LOW = frozenset([Range.GUARDED, Range.TINY])
"""Beyond it towards 0."""

WIDE_INTEGERS = (
    *(TensorProto.INT32, TensorProto.INT64),
    *(TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64),
)
"""Types of whole numbers that fp16 does not hold."""


def within(ranges: Ranges, interval: tuple[float, float]) -> Ranges:
    """Those that the interval of the values leaves possible."""
    if magnitude(interval) <= LARGEST:
        ranges = ranges - HIGH
    if interval[0] >= SMALLEST_INVERTED or interval[1] <= -SMALLEST_INVERTED:
        ranges = ranges - LOW
    return ranges
