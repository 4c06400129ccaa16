"""Core AI programs: made of ONNX graphs, raised to them, and run on any system.

Core AI is Apple's runtime from macOS and iOS 27 on. Its authoring library and an interpreter come with `coreai-core`,
on Linux too: that interpreter is the referee of every conversion.
"""

from triune.coreai.model import ExecutorName, Model, State, load

__all__ = ["ExecutorName", "Model", "State", "load"]
