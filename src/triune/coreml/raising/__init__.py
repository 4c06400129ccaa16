"""Raise ML Programs to ONNX. Each file holds one family of operations and its table."""

from triune.coreml.raising.function import raise_function
from triune.graph.state_names import new_state

__all__ = ["new_state", "raise_function"]
