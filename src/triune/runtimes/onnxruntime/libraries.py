"""Operators that ONNX Runtime does not have."""

from onnx import ModelProto

from triune.graph.custom.foreign import foreign_nodes


def has_foreign_ops(model: ModelProto) -> bool:
    """Whether a model has operators that neither ONNX, nor ONNX Runtime, nor the model's functions define."""
    return any(True for _ in foreign_nodes(model))
