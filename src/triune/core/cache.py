"""Where what can be fetched or built again is kept."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Triune's folder for it: $TRIUNE_CACHE, else one in the platform's cache folder. It need not exist yet."""
    if folder := environment.get("TRIUNE_CACHE"):
        return Path(folder).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "triune"
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "triune"
