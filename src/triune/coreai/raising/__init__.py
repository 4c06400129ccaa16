"""Raise Core AI programs to ONNX. Each file has one family of operations and its table."""

from triune.coreai.raising.function import raise_function
from triune.graph.state_names import new_state

__all__ = ["new_state", "raise_function"]
