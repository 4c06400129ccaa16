"""Reads ONNX files without a runtime."""
