"""Passes over ONNX models, one a file. `run` says what a pass is."""
