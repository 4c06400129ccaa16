"""A check that Apple's library is installed. It must come before the library is imported."""

import importlib.util

from triune.core.errors import UnsupportedError


def require_library() -> None:
    """Raise UnsupportedError, with the command that installs it, if `coreai-core` is not installed."""
    if importlib.util.find_spec("coreai") is None:
        raise UnsupportedError("Core AI programs need coreai-core; pip install 'triune[coreai]'")
