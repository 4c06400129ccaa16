"""Lowering of graphs to Core ML's ML Programs, with coremltools' MIL builder. Each file has one family of operators."""

from triune.coreml.lowering.lower import Lowered, lower, lower_functions
from triune.coreml.lowering.options import LowerOptions, Target
from triune.graph.conversion.sources import MAIN, Source

__all__ = ["MAIN", "LowerOptions", "Lowered", "Source", "Target", "lower", "lower_functions"]
