"""Arrays in files of numpy: what is no file, and what is too much."""

import os
from pathlib import Path

import numpy as np
import pytest

from triune.core.errors import InvalidArgumentError
from triune.core.numpy_files import read_npy, read_npz


def test_arrays_come_back(tmp_path: Path) -> None:
    x = np.arange(6).reshape(2, 3)
    np.save(tmp_path / "x.npy", x)
    np.savez_compressed(tmp_path / "x.npz", x=x, y=x + 1)
    np.testing.assert_array_equal(read_npy(tmp_path / "x.npy", "x"), x, strict=True)
    found = read_npz(tmp_path / "x.npz", "x")
    assert set(found) == {"x", "y"}
    np.testing.assert_array_equal(found["y"], x + 1, strict=True)


@pytest.mark.parametrize("read", [read_npy, read_npz])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, read: object) -> None:
    assert callable(read)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidArgumentError, match="cannot read input 'x' from .*: it is a pipe, not a file; "):
        read(tmp_path / "pipe", "input 'x'")


def test_a_small_archive_of_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, x=np.zeros(1 << 20, np.uint8))
    assert path.stat().st_size < 1 << 13
    with pytest.raises(InvalidArgumentError, match=f"its arrays take {(1 << 20) + 128} bytes, of at most {1 << 19}"):
        read_npz(path, "the inputs", 1 << 19)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"no")
    with pytest.raises(InvalidArgumentError, match="the inputs from .*: File is not a zip file; write it with"):
        read_npz(tmp_path / "x.npz", "the inputs")
