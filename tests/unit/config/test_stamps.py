import os
import subprocess
from pathlib import Path

import pytest

from triune.config import stamps
from triune.config.stamps import stamp
from triune.core.errors import InvalidArgumentError, UnavailableError


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


def test_other_bytes_with_the_same_size_and_time_are_a_change(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    path = tmp_path / "1/model.onnx"
    path.write_text("a")
    os.utime(path, ns=(1, 1))
    before = stamp(tmp_path)
    inode = path.stat().st_ino
    path.write_text("b")
    os.utime(path, ns=(1, 1))
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (inode, 1)
    after = stamp(tmp_path, before)
    assert after.versions[1] != before.versions[1]
    # A hard link is no change, also where the content is not read.
    (tmp_path / ".link").hardlink_to(path)
    assert stamp(tmp_path, after) == after


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


def test_a_deep_folder_and_links_to_themselves(tmp_path: Path) -> None:
    (tmp_path / "round").symlink_to("round")
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(1500):
            os.mkdir("d", dir_fd=here)
            deeper = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = deeper
    finally:
        os.close(here)
    (tmp_path / "d/d/d/file").write_text("")
    try:
        assert set(stamp(tmp_path).files) == {"d/d/d/file"}
    finally:
        # Python's own way of removing folders is not for so deep ones.
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)


def test_a_folder_of_more_than_any_model_has_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("")
    (tmp_path / "1").mkdir()
    monkeypatch.setattr(stamps, "_MAX_ENTRIES", 7)
    assert len(stamp(tmp_path).files) == 3
    (tmp_path / "c/more").write_text("")
    # It is refused before anything is read.
    monkeypatch.setattr(stamps, "_digest", None)
    with pytest.raises(InvalidArgumentError, match="more than 7 files and folders"):
        stamp(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(InvalidArgumentError, match=f"/link, a link to {tmp_path}, holds more"):
        stamp(tmp_path / "link")


def test_a_folder_that_is_not_listed_in_time_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "_MAX_LIST_SECONDS", -1)
    with pytest.raises(InvalidArgumentError, match="takes more than -1 s to be listed"):
        stamp(tmp_path)


def test_nothing_is_read_where_there_is_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "abc").mkdir()
    (tmp_path / "abc/large").write_text("a")
    with monkeypatch.context() as patched:
        patched.setattr(stamps, "_digest", None)
        before = stamp(tmp_path)
    os.utime(tmp_path / "abc/large", ns=(1, 1))
    assert stamp(tmp_path, before) != before


def test_a_look_that_is_given_up_ends(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    with (tmp_path / "1/model.onnx").open("wb") as file:
        file.truncate(1 << 30)
    num_checks = 0

    def check() -> None:
        nonlocal num_checks
        num_checks += 1
        if num_checks == 9:
            raise UnavailableError("enough")

    with pytest.raises(UnavailableError, match="enough"):
        stamp(tmp_path, None, check)


def test_one_look_reads_so_much_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "_MAX_READ_BYTES", 5)
    (tmp_path / "1").mkdir()
    for name in ("a", "b"):
        (tmp_path / name).write_text("1234")
    before = stamp(tmp_path)
    for name in ("a", "b"):
        os.utime(tmp_path / name, ns=(1, 1))
    after = stamp(tmp_path)
    assert after.files["a"] == before.files["a"]
    assert after.files["b"] != before.files["b"]
