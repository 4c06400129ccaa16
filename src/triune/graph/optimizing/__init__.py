"""Optimize ONNX graphs by levels: `levels` has the table of passes, `run` runs and checks them."""

from triune.graph.optimizing.levels import STEPS, Level, Step, steps_of
from triune.graph.optimizing.report import PassReport, change_between, op_counts
from triune.graph.optimizing.run import Optimized, optimize

__all__ = ["STEPS", "Level", "Optimized", "PassReport", "Step", "change_between", "op_counts", "optimize", "steps_of"]
