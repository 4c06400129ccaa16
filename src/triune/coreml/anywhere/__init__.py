"""Makes an unmodified coremltools work off Apple's systems: `import triune.coreml.anywhere`, before it or after it.

coremltools predicts, compiles and plans through a compiled module, `coremltools.libcoremlpython`, that exists for
macOS only, and it asks for the platform in many places. The import puts a module of the same interface in its place,
which runs ML Programs with Triune, and opens those gates. Nothing happens unless this is imported; on Apple's systems
nothing is changed, since coremltools has its own module there.

What it gives: answers of Triune's executors, in the precision that the program asks for, and measured durations. What
it does not give: Core ML's speed or choice of compute units. Compute plans are predictions, and the devices say by
their names that they are emulated. Pipelines of ML Programs run; models of other kinds
(neural networks, trees) are refused.

coremltools' module has one name and one place in a process, so this has too: it is for the main thread.
"""

import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal

from triune.coreml.anywhere.gates import close_gates, open_gates
from triune.coreml.anywhere.module import NAME, build_module, is_standin

__all__ = ["EmulationWarning", "install", "installed", "is_installed", "uninstall"]

NOTICE = (
    "coremltools now predicts with Triune's runtime, not with Core ML: answers are Triune's, devices are emulated, "
    "and compute plans are predictions"
)
APPLE_NOTICE = "this is an Apple system: coremltools has its own module here, and nothing was changed"


class EmulationWarning(UserWarning):
    """Says once that what follows does not come from Core ML."""


def install(executor: Literal["onnxruntime", "reference"] = "onnxruntime") -> bool:
    """Put the module in place and open the gates. Does nothing where that is done already.

    Args:
        executor: what computes: ONNX Runtime, or Triune's slow numpy interpreter.

    Returns:
        Whether coremltools runs on Triune now: False on Apple's systems.

    Raises:
        UnsupportedError: coremltools is not installed.
    """
    if sys.platform == "darwin":
        warnings.warn(APPLE_NOTICE, EmulationWarning, stacklevel=2)
        return False
    if not is_installed():
        open_gates(build_module(executor))
        warnings.warn(NOTICE, EmulationWarning, stacklevel=2)
    return True


def uninstall() -> None:
    """Take the module out and close the gates. Models that are loaded go on to work."""
    module = sys.modules.get(NAME)
    if module is not None and is_standin(module):
        close_gates(module)


def is_installed() -> bool:
    """Whether coremltools runs on Triune in this process."""
    module = sys.modules.get(NAME)
    return module is not None and is_standin(module)


@contextmanager
def installed(executor: Literal["onnxruntime", "reference"] = "onnxruntime") -> Generator[None]:
    """`install` for a while; leaves things as they were found."""
    was_installed = is_installed()
    install(executor)
    try:
        yield
    finally:
        if not was_installed:
            uninstall()


# The one import in the house with an effect, and the reason why this module exists.
install()
