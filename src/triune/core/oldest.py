"""Limits the number of files in a folder by removing the oldest."""

import contextlib
import os
from pathlib import Path


def forget_oldest(folder: Path, most: int) -> None:
    """Remove the oldest files of a folder, so that at most `most` are left. Other processes may do so at the same time.

    Raises:
        OSError: the folder cannot be read, or a file cannot be removed.
    """
    found: list[tuple[int, str]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            # Leave out a file that another process has removed meanwhile.
            with contextlib.suppress(FileNotFoundError):
                found.append((entry.stat().st_mtime_ns, entry.path))
    for _, path in sorted(found)[: max(0, len(found) - most)]:
        Path(path).unlink(missing_ok=True)
