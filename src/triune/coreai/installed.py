"""Is Apple's library here? Whoever is about to import it asks first."""

import importlib.util

from triune.core.errors import UnsupportedError


def require_library() -> None:
    """Raises UnsupportedError, with the line that installs it, where `coreai-core` is not here."""
    if importlib.util.find_spec("coreai") is None:
        raise UnsupportedError("Core AI programs need coreai-core; pip install 'triune[coreai]'")
