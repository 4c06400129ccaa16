"""Passes, each of which rewrites one thing in an ONNX model. Each has a file of its own; `run` has their base class."""
