"""Graphs lowered to Core ML's ML Programs, through coremltools' MIL builder. One family of operators a file."""

from triune.coreml.lowering.lower import Lowered, lower
from triune.coreml.lowering.options import (
    InputShape,
    Layout,
    LowerOptions,
    Precision,
    Range,
    Target,
    parse_shape,
    parse_shapes,
)

__all__ = [
    "InputShape",
    "Layout",
    "LowerOptions",
    "Lowered",
    "Precision",
    "Range",
    "Target",
    "lower",
    "parse_shape",
    "parse_shapes",
]
