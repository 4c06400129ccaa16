"""Lowerings of core ops that Core ML and Core AI share, written with the primitives of a `Builder`.

`coreml.lowering` and `coreai.lowering` use these for all core ops for which they have no lowering of their own.
"""
