"""ONNX models in memory: loaded, checked and brought to core ops by passes."""
