"""Graphs lowered to Core ML's ML Programs, through coremltools' MIL builder. One family of operators a file."""

from triune.coreml.lowering.lower import Lowered, lower
from triune.coreml.lowering.options import LowerOptions, Target

__all__ = ["LowerOptions", "Lowered", "Target", "lower"]
