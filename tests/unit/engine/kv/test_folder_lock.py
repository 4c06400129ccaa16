"""Folders of cached keys and values that other processes use are not deleted."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from triune.engine.kv.folder_lock import FolderHold, remove_unless_held


def folder_in(parent: Path) -> Path:
    folder = parent / "cpu-1"
    folder.mkdir()
    (folder / "block").write_text("keys and values")
    return folder


def test_a_folder_that_nobody_marked_is_deleted(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    remove_unless_held(folder)
    assert not folder.exists()


def test_a_marked_folder_stays_until_it_is_released(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    hold = FolderHold(folder)
    hold.take()
    remove_unless_held(folder)
    assert (folder / "block").exists()
    hold.release()
    remove_unless_held(folder)
    assert not folder.exists()


def test_a_marked_folder_stays_on_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    folder = folder_in(tmp_path)
    hold = FolderHold(folder)
    hold.take()
    remove_unless_held(folder)
    assert (folder / "block").exists()
    hold.release()
