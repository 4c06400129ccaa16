"""Locks that other processes hold for a moment only, and one that is held too long."""

import fcntl
import os
from pathlib import Path

import pytest

from triune.core.file_lock import lock_within


def test_a_lock_may_be_shared_and_is_waited_for_no_longer_than_said(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first, second = (os.open(path, os.O_RDWR | os.O_CREAT) for _ in range(2))
    try:
        lock_within(60, first, path, is_shared=True)
        lock_within(60, second, path, is_shared=True)
        with pytest.raises(TimeoutError, match=r"another process holds '.*lock' for 0.01 s"):
            lock_within(0.01, second, path)
        fcntl.flock(first, fcntl.LOCK_UN)
        lock_within(60, second, path)
    finally:
        os.close(first)
        os.close(second)
