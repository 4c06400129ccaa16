"""Optimize ONNX graphs by levels: `levels` is the table of passes, `run` runs and checks them, `save` writes the
model.
"""
