"""Functions that parser processes compute in tests."""

import time
from pathlib import Path


def size_when_released(begun: Path, release: Path, body: memoryview) -> int:
    """Write the file `begun`, wait until the file `release` is there, and return the size of the body."""
    begun.touch()
    while not release.exists():
        time.sleep(0.01)
    return len(body)
