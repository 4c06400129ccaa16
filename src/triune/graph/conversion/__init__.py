"""Shared by all conversions of ONNX graphs to Apple's programs: options, preparation, shapes, constants and errors."""
