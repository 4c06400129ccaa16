"""Tensor models: a runtime compiles their file, and a `Dispatcher` with workers answers requests."""
