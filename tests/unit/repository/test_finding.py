"""What is found in repositories, whatever lies there."""

import os
from pathlib import Path

import pytest

from triune.config.stamps import stamp
from triune.core.errors import InvalidArgumentError
from triune.repository import finding
from triune.repository.finding import TWICE, Finder, Found, find_models


def test_models_of_several_repositories(tmp_path: Path) -> None:
    for path in ("a/one/1", "a/two/1", "b/two/1", "b/.cache"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "a/README").write_text("")
    (tmp_path / "b/README").symlink_to(tmp_path / "a/README")
    found = find_models([tmp_path / "a", tmp_path / "b"])
    assert found == {
        "one": Found((tmp_path / "a/one",)),
        "two": Found((tmp_path / "a/two", tmp_path / "b/two"), TWICE),
    }
    with pytest.raises(InvalidArgumentError, match="cannot be read"):
        find_models([tmp_path / "nowhere"])


def test_a_model_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "store/1").mkdir(parents=True)
    (tmp_path / "store/1/model.onnx").write_text("a")
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository/m").symlink_to(tmp_path / "store", target_is_directory=True)
    assert find_models([tmp_path / "repository"]) == {"m": Found((tmp_path / "repository/m",))}
    assert "1/model.onnx" in stamp(tmp_path / "repository/m").versions[1]


@pytest.mark.parametrize("target", [".", "..", "/", "../beside/.."])
def test_a_link_to_what_holds_the_repository_is_no_model(tmp_path: Path, target: str) -> None:
    (tmp_path / "beside").mkdir()
    (tmp_path / "repository/good").mkdir(parents=True)
    (tmp_path / "repository/all").symlink_to(target)
    (tmp_path / "repository/same").symlink_to("good")
    (tmp_path / "other").symlink_to("repository")
    found = find_models([tmp_path / "other"])
    assert "a link to a folder that holds the repository" in found["all"].problem
    assert found["good"].problem == found["same"].problem == ""


def test_what_cannot_be_a_model_says_why_and_keeps_no_other_from_being_found(tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    found = find_models([tmp_path])
    assert found.keys() == {"good", "round", "gone"}
    assert found["good"].problem == ""
    for name in ("round", "gone"):
        assert "a link that leads nowhere" in found[name].problem


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_a_name_that_is_not_utf8_is_told_in_one_that_is(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"bad\xff")).mkdir()
    except OSError:
        pytest.skip("this disk takes names of UTF-8 only")
    assert "not UTF-8" in find_models([tmp_path])["bad\\xff"].problem


def test_an_entry_that_cannot_be_looked_at_for_now_is_left_to_its_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m").mkdir()

    class Denied:
        name = "m"

        def is_dir(self) -> bool:
            raise PermissionError(13, "Permission denied")

    assert finding._problem_of(Denied(), finding._Ancestors(tmp_path)) == ""  # type: ignore[arg-type]


def test_a_repository_that_vanishes_holds_what_it_held(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for path in ("a/one", "b/two"):
        (tmp_path / path).mkdir(parents=True)
    finder = Finder([tmp_path / "a", tmp_path / "b"])
    assert finder.find().keys() == {"one", "two"}
    (tmp_path / "a").rename(tmp_path / "elsewhere")
    (tmp_path / "b/three").mkdir()
    for _ in range(3):
        found = finder.find()
        assert found.keys() == {"one", "two", "three"}
        assert [name for name, each in found.items() if each.is_remembered] == ["one"]
    # Another thing in its place is no repository either; each problem is told once.
    (tmp_path / "a").write_text("")
    assert finder.find().keys() == {"one", "two", "three"}
    assert [each.levelname for each in caplog.records] == ["ERROR", "ERROR"]
    assert "its models are served as before" in caplog.text
    (tmp_path / "a").unlink()
    (tmp_path / "a/four").mkdir(parents=True)
    assert finder.find().keys() == {"two", "three", "four"}
    with pytest.raises(InvalidArgumentError, match="cannot be read"):
        Finder([tmp_path / "nowhere"]).find()
