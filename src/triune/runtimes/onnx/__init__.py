"""ONNX files read without a runtime, for every runtime that takes them."""
