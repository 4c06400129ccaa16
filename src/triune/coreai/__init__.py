"""Core AI programs: ONNX graphs are lowered to them, they are raised to ONNX graphs, and they run on any system.

Core AI is Apple's runtime from macOS and iOS 27 on. Its authoring library and an interpreter come with `coreai-core`,
also on Linux. Every conversion is verified against that interpreter.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from triune.coreai.model import ExecutorName, Model, State, load

__all__ = ["ExecutorName", "Model", "State", "load"]


def __getattr__(name: str) -> Any:
    """Import the package's names lazily: the process that only reads an asset needs none of them."""
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from triune.coreai import model

    return getattr(model, name)
