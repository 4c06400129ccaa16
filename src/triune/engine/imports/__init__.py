"""Converts exported ONNX decoders to the paged form of `engine.models.forms`.

`prepare` brings the graph to standard operators, `group_query` and `written_out` find its attention, `paged` replaces
it. The nodes that make masks and positions need not be recognised: `probe` computes them for a few sizes, and the
results are compared with those of causal attention.
"""
