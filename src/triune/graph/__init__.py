"""ONNX models in memory: load, check and rewrite them in core operators by passes."""
