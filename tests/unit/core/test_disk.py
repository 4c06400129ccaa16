"""Disks that are full."""

import errno
import os
from pathlib import Path

import pytest

from triune.core.disk import disk_error, writing
from triune.core.errors import InternalError, InvalidArgumentError, UnsupportedError


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "make room there"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, r"ulimit -f"),
        (errno.EROFS, "a place that can be written to"),
    ],
)
def test_the_file_the_disks_and_the_remedy_are_named(
    number: int, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/")
    with pytest.raises(InvalidArgumentError) as caught, writing(tmp_path / "out.onnx"):
        raise OSError(number, os.strerror(number))
    text = str(caught.value)
    assert text.startswith(f"'{tmp_path}/out.onnx' cannot be written: {os.strerror(number)}. '{tmp_path}' has ")
    assert "bytes free, and '/' (TMPDIR)" in text
    assert remedy in text


def test_a_disk_that_does_not_tell_its_free_space_is_named_too(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="has free space that cannot be read"), writing(tmp_path / "a/b"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_errors_of_libraries_count_by_their_text_and_their_cause(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="No space left on device"), writing(tmp_path / "out"):
        raise RuntimeError("writer: No space left on device (os error 28)")
    with pytest.raises(InvalidArgumentError, match="File too large"), writing(tmp_path / "out"):
        raise UnsupportedError("the library does not save it") from OSError(errno.EFBIG, os.strerror(errno.EFBIG))


@pytest.mark.parametrize(
    "error",
    [
        InvalidArgumentError("'x' cannot be written: No space left on device; name another"),
        InternalError("a bug"),
        OSError(errno.EFBIG, "it has 2 bytes; at most 1 are read", "x"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "x"),
    ],
)
def test_other_errors_stay(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught, writing(tmp_path / "out"):
        raise error
    assert caught.value is error


def test_what_was_put_aside_is_no_cause() -> None:
    error = ValueError("another")
    error.__context__ = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert disk_error(error) is error.__context__
    error.__suppress_context__ = True
    assert disk_error(error) is None
