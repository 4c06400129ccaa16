"""Make an unmodified coremltools work off Apple's systems: `import triune.coreml.anywhere`, before or after it.

coremltools predicts, compiles and plans through a compiled module, `coremltools.libcoremlpython`, which exists only for
macOS, and it checks the platform in many places. This import replaces that module by one with the same interface, which
runs ML Programs with Triune, and makes the platform checks succeed. On Apple's systems it changes nothing, since
coremltools has its own module there.

Answers come from Triune's executors, in the program's precision, and durations are measured. Speed and the choice of
compute units are not Core ML's: compute plans are predictions, and the names of devices say that they are emulated.
Pipelines of ML Programs run, too; models of other kinds (neural networks, trees) are refused.

The module is replaced for the whole process, so import this from the main thread.
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
    """The warning that results do not come from Core ML. It is shown once."""


def install(executor: Literal["onnxruntime", "reference"] = "onnxruntime") -> bool:
    """Replace coremltools' module and its platform checks. Does nothing if that is done already.

    Args:
        executor: the executor: ONNX Runtime, or Triune's slow numpy interpreter.

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
    """Restore coremltools' module and platform checks. Loaded models keep working."""
    module = sys.modules.get(NAME)
    if module is not None and is_standin(module):
        close_gates(module)


def is_installed() -> bool:
    """Whether coremltools runs on Triune in this process."""
    module = sys.modules.get(NAME)
    return module is not None and is_standin(module)


@contextmanager
def installed(executor: Literal["onnxruntime", "reference"] = "onnxruntime") -> Generator[None]:
    """A context in which `install` is in effect; the previous state is restored."""
    was_installed = is_installed()
    install(executor)
    try:
        yield
    finally:
        if not was_installed:
            uninstall()


# Replace coremltools' module now: importing this module is all that a program needs to do.
install()
