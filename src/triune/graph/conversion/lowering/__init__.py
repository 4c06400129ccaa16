"""Core ops written once, by the primitives of a `Builder`: every lowering takes what it has no form of its own for."""
