"""Lowerings of core ops that all targets share, written with the primitives of a `Builder`.

A target (Core ML, Core AI) uses one of these unless it has a better lowering of its own for the op.
"""
