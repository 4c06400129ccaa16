"""Tensor models: a file that a runtime compiles, answered for by a `Dispatcher` over workers."""
