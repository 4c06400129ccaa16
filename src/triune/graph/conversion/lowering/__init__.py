"""Core ops written once, in the primitives of a `Builder`.

A lowering (to Core ML, to Core AI) uses these for each op of which it has no better form of its own.
"""
