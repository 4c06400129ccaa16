"""Shared by all conversions of a graph: options, preparation, shapes and constants, and reports of problems."""
