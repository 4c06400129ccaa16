"""`triune.optimize`: rewrites a model to an ONNX graph with fewer nodes, by levels, and proves that it is the same."""

from triune.api.optimizing.optimize import LevelName, Optimization, UnitName, optimize

__all__ = ["LevelName", "Optimization", "UnitName", "optimize"]
