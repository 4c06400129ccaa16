"""ML Programs of Core ML: lowered from ONNX graphs, raised to ONNX graphs, and run on any system."""

from triune.coreml.model import ExecutorName, Model, State, load

__all__ = ["ExecutorName", "Model", "State", "load"]
