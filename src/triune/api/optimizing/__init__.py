"""`triune.optimize`: rewrites a model to an ONNX graph with fewer nodes, by levels, and compares it with the source."""

from triune.api.optimizing.optimize import LevelName, Optimization, UnitName, optimize

__all__ = ["LevelName", "Optimization", "UnitName", "optimize"]
