"""Lowering of graphs to Core AI programs, with the dialect of `coreai-core`. Each file has one family of operators."""

from triune.coreai.lowering.lower import Lowered, lower, lower_functions
from triune.coreai.lowering.options import LowerOptions
from triune.graph.conversion.sources import MAIN, Source

__all__ = ["MAIN", "LowerOptions", "Lowered", "Source", "lower", "lower_functions"]
