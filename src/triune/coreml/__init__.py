"""Core ML ML Programs: made from graphs, raised to graphs, and run on any system."""

from triune.coreml.model import Model, State, load

__all__ = ["Model", "State", "load"]
