import os
from pathlib import Path

import pytest

from triune.repository import stamps
from triune.repository.stamps import stamp


def test_a_stamp_notices_what_counts(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1/model.onnx").write_text("a")
    (tmp_path / "config.pbtxt").write_text("")
    before = stamp(tmp_path)
    assert stamp(tmp_path) == before
    (tmp_path / ".config.pbtxt.swp").write_text("an editor's")
    (tmp_path / "config.pbtxt~").write_text("an editor's")
    assert stamp(tmp_path) == before
    (tmp_path / "1/model.onnx").write_text("b")
    after = stamp(tmp_path, before)
    assert after.versions[1] != before.versions[1]
    assert after.files == before.files
    (tmp_path / "2").mkdir()
    assert 2 in stamp(tmp_path).versions
    (tmp_path / "labels.txt").write_text("cat")
    assert stamp(tmp_path).files != before.files
    assert set(stamp(tmp_path).companions()) == {"labels.txt"}


def test_the_same_bytes_written_anew_are_no_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "1").mkdir()
    path = tmp_path / "1/model.onnx"
    path.write_text("a")
    before = stamp(tmp_path)
    os.utime(path, ns=(1, 1))
    touched = stamp(tmp_path, before)
    assert touched == before
    (tmp_path / "other").write_text("a")
    (tmp_path / "other").replace(path)
    replaced = stamp(tmp_path, touched)
    assert replaced == before
    # What looks as it did is not read again.
    monkeypatch.setattr(stamps, "_digest", None)
    assert stamp(tmp_path, replaced) == before


def test_what_is_not_read_is_known_by_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "_MAX_DIGESTED_BYTES", 2)
    (tmp_path / "large").write_text("abc")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    before = stamp(tmp_path)
    assert set(before.files) == {"large", "pipe", "zeros"}
    os.utime(tmp_path / "large", ns=(1, 1))
    assert stamp(tmp_path, before) != before


def test_links_that_go_round_in_circles_end(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1/a").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "1/b").symlink_to(tmp_path / "1", target_is_directory=True)
    (tmp_path / "1/gone").symlink_to(tmp_path / "nowhere")
    assert set(stamp(tmp_path).versions) == {1}
