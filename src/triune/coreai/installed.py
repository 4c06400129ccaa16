"""A check to make before Apple's library is imported: is it installed?"""

import importlib.util

from triune.core.errors import UnsupportedError


def require_library() -> None:
    """Raises UnsupportedError, with the command that installs it, if `coreai-core` is not installed."""
    if importlib.util.find_spec("coreai") is None:
        raise UnsupportedError("Core AI programs need coreai-core; pip install 'triune[coreai]'")
