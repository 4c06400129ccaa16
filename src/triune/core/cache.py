"""The cache folder. All files in it can be downloaded or built again."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """The path of Triune's cache folder: $TRIUNE_CACHE, else a folder in the platform's cache folder.

    It need not exist yet.
    """
    if folder := environment.get("TRIUNE_CACHE"):
        return Path(folder).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "triune"
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "triune"
