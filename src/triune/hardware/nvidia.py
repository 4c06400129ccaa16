"""Detects NVIDIA's GPUs on Linux from the driver's files."""

import re
from collections.abc import Sequence
from pathlib import Path

CUDA_LIBRARIES = "nvidia"
"""The Python package of CUDA's libraries. If it is installed, the installed build of MLX is taken to be the one for
CUDA: MLX's build for CPUs does not install this package.
"""

_DRIVER = Path("/proc/driver/nvidia/gpus")


def read_nvidia(folder: Path = _DRIVER) -> str:
    """Read the models of the GPUs, such as "NVIDIA H200" or "2 x NVIDIA H200"; "" if there are no GPUs or no driver.

    Args:
        folder: the driver's folder, in which each GPU has a folder with a file `information`.
    """
    try:
        texts = [path.read_text() for path in sorted(folder.glob("*/information"))]
    except OSError:
        return ""
    return gpu_names([found[1] for text in texts if (found := re.search(r"^Model:\s*(.+?)\s*$", text, re.MULTILINE))])


def gpu_names(names: Sequence[str]) -> str:
    """Describe GPUs by their names: "2 x NVIDIA H200"; "" for none."""
    kinds = dict.fromkeys(names)
    return ", ".join(f"{names.count(name)} x {name}" if names.count(name) > 1 else name for name in kinds)
