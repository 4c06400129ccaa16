"""Compress the weights and activations of ONNX models: integers, palettes, zeros; and search what must stay precise."""
