"""Raising ML Programs to ONNX: one file an operation family, each with its table."""

from triune.coreml.raising.function import new_state, raise_function

__all__ = ["new_state", "raise_function"]
