"""Lowering of graphs to Core ML's ML Programs, with coremltools' MIL builder. Each file has one family of operators."""

from triune.coreml.lowering.lower import Lowered, lower
from triune.coreml.lowering.options import LowerOptions, Target

__all__ = ["LowerOptions", "Lowered", "Target", "lower"]
