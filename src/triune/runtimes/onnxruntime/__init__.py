"""ONNX Runtime."""

from triune.runtimes.onnxruntime.runtime import OnnxRuntime

__all__ = ["OnnxRuntime"]
