"""Only plain files are read, and nothing waits for anything else."""

import io
import os
import socket
from pathlib import Path

import pytest

from triune.core.files import non_file_kind, open_file, read_file


def test_plain_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for name in ("file", "link"):
        assert read_file(tmp_path / name, 5) == b"12345"
        assert non_file_kind(tmp_path / name) is None
    with open_file(tmp_path / "file") as file:
        assert file.read(2) == b"12"
    with pytest.raises(OSError, match="it has 5 bytes; at most 4 are read"):
        read_file(tmp_path / "file", 4)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "nothing", 4)


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(10 << 30)
    with pytest.raises(OSError, match="it has 10737418240 bytes"):
        read_file(tmp_path / "sparse", 1 << 31)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_a_file_that_does_not_tell_its_size_is_held_to_the_limit() -> None:
    assert read_file(Path("/proc/self/maps"), 1 << 20)
    with pytest.raises(OSError, match="more than 10 bytes"):
        read_file(Path("/proc/self/maps"), 10)


def test_what_is_no_file_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    (tmp_path / "round").symlink_to("round")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        kinds = {"pipe": "a pipe", "zeros": "a device", "folder": "a folder", "socket": "a socket"}
        for name, kind in kinds.items():
            assert non_file_kind(tmp_path / name) == kind
            with pytest.raises(OSError, match=f"it is {kind}, not a file"):
                read_file(tmp_path / name, 10)
    with pytest.raises(OSError, match="symbolic links"):
        read_file(tmp_path / "round", 10)


def test_a_pipe_that_takes_a_files_place_meanwhile_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    status = (tmp_path / "file").stat()
    monkeypatch.setattr(Path, "stat", lambda _, follow_symlinks=True: status)
    with pytest.raises(OSError, match="it is a pipe, not a file"):
        open_file(tmp_path / "pipe")


@pytest.mark.skipif(not os.access("/proc/kmsg", os.R_OK), reason="needs /proc/kmsg")
def test_a_file_without_an_end_is_not_waited_for() -> None:
    for size in (1 << 16, -1):
        with open_file(Path("/proc/kmsg")) as file, pytest.raises(OSError, match="gives nothing now, and has no end"):
            read_to_the_end(file, size)


def read_to_the_end(file: io.BufferedReader, size: int) -> None:
    while file.read(size):
        pass


@pytest.mark.skipif(not os.access("/proc/self/pagemap", os.R_OK), reason="needs /proc/self/pagemap")
def test_of_an_endless_file_little_is_read() -> None:
    with pytest.raises(OSError, match="more than 1048576 bytes"):
        read_file(Path("/proc/self/pagemap"), 1 << 31)
