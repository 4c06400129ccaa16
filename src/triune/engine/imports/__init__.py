"""Decoders that others exported to ONNX, brought to the paged form of `engine.models.forms`.

`prepare` brings the graph to standard operators, `group_query` and `written_out` find its attention, `paged` replaces
it. What a mask or a position is made of does not matter: `probe` computes them for a few sizes, and compares.
"""
