"""Lowering of graphs to Core AI programs, with the dialect of `coreai-core`. Each file has one family of operators."""

from triune.coreai.lowering.lower import MAIN, Lowered, Source, lower, lower_functions
from triune.coreai.lowering.options import LowerOptions

__all__ = ["MAIN", "LowerOptions", "Lowered", "Source", "lower", "lower_functions"]
