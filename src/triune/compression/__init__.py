"""Compress ONNX models: weights become integers, palettes or zeros, activations become integers; a search finds which
layers must stay precise.
"""
