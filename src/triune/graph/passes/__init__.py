"""Passes: each rewrites one pattern of an ONNX model, and has its own file. `run` has the base class."""
