"""Read ONNX files without a runtime."""
