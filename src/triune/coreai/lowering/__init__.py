"""Graphs lowered to Core AI programs, through the dialect of `coreai-core`. One family of operators a file."""

from triune.coreai.lowering.lower import MAIN, Lowered, Source, lower, lower_functions
from triune.coreai.lowering.options import LowerOptions

__all__ = ["MAIN", "LowerOptions", "Lowered", "Source", "lower", "lower_functions"]
