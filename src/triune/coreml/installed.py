"""Checks that coremltools is installed. Import this module before modules that import coremltools."""

import importlib.util

from triune.core.errors import UnsupportedError


def require_library() -> None:
    """Raise UnsupportedError, with the command that installs it, if coremltools is not installed."""
    if importlib.util.find_spec("coremltools") is None:
        raise UnsupportedError("converting to Core ML needs coremltools; pip install 'triune[coreml]'")
