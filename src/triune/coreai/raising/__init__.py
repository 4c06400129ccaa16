"""Raising Core AI programs to ONNX: one file an operation family, each with its table."""

from triune.coreai.raising.function import raise_function
from triune.graph.state_names import new_state

__all__ = ["new_state", "raise_function"]
