"""Core AI programs: ONNX graphs are lowered to them, they are raised to ONNX graphs, and they run on any system.

Core AI is Apple's runtime from macOS 27 and iOS 27 on. The package `coreai-core` has the library that writes programs,
and an interpreter, also on Linux. Every conversion is verified against that interpreter.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from triune.coreai.model import ExecutorName, Model, State, load

__all__ = ["ExecutorName", "Model", "State", "load"]


def __getattr__(name: str) -> Any:
    """Import the package's names only when they are used: a process that only reads an asset needs none of them."""
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from triune.coreai import model

    return getattr(model, name)
