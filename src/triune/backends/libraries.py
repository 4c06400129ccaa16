"""The libraries of the extra `engine`, which models from checkpoints need."""

import importlib.util
from typing import Final

from triune.core.errors import UnsupportedError

_LIBRARIES: Final = ("safetensors", "tokenizers", "jinja2", "llguidance")


def missing_libraries() -> str:
    """Name the libraries for checkpoints that are not installed, and the command that installs them; "" if all are
    installed.
    """
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    return f"checkpoints need {', '.join(missing)}, not installed: pip install 'triune[engine]'" if missing else ""


def require_libraries() -> None:
    """Raise UnsupportedError if a library that checkpoints need is not installed."""
    if reason := missing_libraries():
        raise UnsupportedError(reason)
