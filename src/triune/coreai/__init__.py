"""Core AI programs: made of ONNX graphs, raised to them, and run on any system.

Core AI is Apple's runtime from macOS and iOS 27 on. Its authoring library and an interpreter come with `coreai-core`,
on Linux too: that interpreter is the referee of every conversion.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from triune.coreai.model import ExecutorName, Model, State, load

__all__ = ["ExecutorName", "Model", "State", "load"]


def __getattr__(name: str) -> Any:
    """What the package offers is imported when it is asked for: the process that reads an asset needs none of it."""
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from triune.coreai import model

    return getattr(model, name)
