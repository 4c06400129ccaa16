"""Core ML ML Programs: made from graphs, raised to graphs, and run on any system."""

from triune.coreml.model import ExecutorName, Model, State, load

__all__ = ["ExecutorName", "Model", "State", "load"]
