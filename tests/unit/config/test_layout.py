import errno
from pathlib import Path

import pytest

from triune.config.layout import check_name, choose_versions, find_versions, inside
from triune.core.errors import InvalidArgumentError, UnavailableError
from triune.protos.model_config_pb2 import ModelVersionPolicy
from triune.repository.override import MAX_DEPTH, MAX_FILES, Override


def test_versions_are_numbers_without_leading_zeros(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("1", "10", "2", "0", "01", "-1", "1a", "latest", "warmup", "configs", ".git", "9" * 30):
        (tmp_path / name).mkdir()
    (tmp_path / "3").write_text("a file is no version")
    assert find_versions(tmp_path) == [0, 1, 2, 10]
    assert "ignore version directory '01' which contains leading zeros in its directory name" in caplog.text
    for ignored in ("-1", "1a", "latest", "9" * 30):
        assert f"ignore version directory '{ignored}' which fails to convert to integral number" in caplog.text
    assert len(caplog.records) == 5


def test_so_many_folders_are_named_that_are_no_versions(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(20):
        (tmp_path / f"v{number:02}").mkdir()
    assert find_versions(tmp_path) == []
    assert len(caplog.records) == 17
    assert "'v15'" in caplog.text
    assert "'v16'" not in caplog.text
    assert "ignore 4 more" in caplog.text


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (ModelVersionPolicy(), [7]),
        (ModelVersionPolicy(latest=ModelVersionPolicy.Latest(num_versions=1)), [7]),
        (ModelVersionPolicy(latest=ModelVersionPolicy.Latest(num_versions=2)), [3, 7]),
        (ModelVersionPolicy(latest=ModelVersionPolicy.Latest(num_versions=99)), [1, 3, 7]),
        (ModelVersionPolicy(all=ModelVersionPolicy.All()), [1, 3, 7]),
        (ModelVersionPolicy(specific=ModelVersionPolicy.Specific(versions=[7, 1, 1])), [1, 7]),
        (ModelVersionPolicy(specific=ModelVersionPolicy.Specific(versions=[3, 4])), [3]),
    ],
)
def test_version_policies(policy: ModelVersionPolicy, expected: list[int], caplog: pytest.LogCaptureFixture) -> None:
    assert choose_versions(policy, [3, 1, 7], "m") == expected
    assert ("version 4 is specified for model 'm'" in caplog.text) == (4 in policy.specific.versions)


@pytest.mark.parametrize(
    "policy",
    [
        ModelVersionPolicy(latest=ModelVersionPolicy.Latest(num_versions=0)),
        ModelVersionPolicy(specific=ModelVersionPolicy.Specific(versions=[4])),
    ],
)
def test_a_policy_that_leaves_nothing_says_what_there_is(policy: ModelVersionPolicy) -> None:
    with pytest.raises(InvalidArgumentError, match="at least one version must be available.*versions 1, 3"):
        choose_versions(policy, [3, 1], "m")


@pytest.mark.parametrize("name", ["", "  ", ".", "..", "../x", "a/b", "/etc", "a\\b", "a\0b"])
def test_names_that_lead_elsewhere(name: str) -> None:
    with pytest.raises(InvalidArgumentError):
        check_name(name)


ESCAPES = ["", "/etc/passwd", "..", "../x", "1/../../x", "1/..", "a\0b", "..\\x", "."]


@pytest.mark.parametrize("relative", ESCAPES)
def test_paths_that_climb_out(tmp_path: Path, relative: str) -> None:
    with pytest.raises(InvalidArgumentError, match="stays within"):
        inside(tmp_path, relative, "file")


@pytest.mark.parametrize("relative", ESCAPES)
def test_an_override_writes_nothing_outside_and_leaves_nothing(
    tmp_path: Path, relative: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(InvalidArgumentError):
        Override("m", {"1/model.onnx": b"fine", relative: b"evil"})
    assert list(tmp_path.rglob("*")) == []


def test_an_override_is_private_and_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    override = Override("m", {"1/model.onnx": b"a", "1/deep/er/data.bin": b"b"})
    assert (override.folder / "1/deep/er/data.bin").read_bytes() == b"b"
    assert override.folder.parent.stat().st_mode & 0o077 == 0
    override.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["1/" + "d/" * MAX_DEPTH + "x"], r"is 17 folders deep; 16 are the limit: put the file higher"),
        ([f"{number}/{'d/' * 10}x" for number in range(100)], "more than 4096 files or 1024 folders"),
        ([f"1/{number}" for number in range(MAX_FILES + 1)], "load the model from a repository's folder"),
    ],
)
def test_an_override_of_too_many_files_or_folders(
    paths: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(InvalidArgumentError, match=message):
        Override("m", dict.fromkeys(paths, b""))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["tempfile.mkdtemp", "pathlib.Path.write_bytes"])
def test_an_override_that_does_not_fit_on_the_disk(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(place, fail)
    with pytest.raises(UnavailableError, match=f"No space left on device in '{tmp_path}'.*TMPDIR"):
        Override("m", {"1/model.onnx": b"a"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("files", [{"1": b"", "1/model.onnx": b""}, {"1/model.onnx": b"", "1": b""}])
def test_an_override_that_no_disk_could_hold(files: dict[str, bytes]) -> None:
    with pytest.raises(InvalidArgumentError, match="Invalid file parameter"):
        Override("m", files)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("x" * 256, "is too long: it has 256 bytes, and 255 are the limit; shorten it"),
        ("1/" + "é" * 128, "is too long: it has 256 bytes, and 255 are the limit"),
        ("/".join(["x" * 200] * 40), "is too long: it has 8039 bytes, and 512 are the limit"),
        ("x" * 5000, "is too long: it has 5000 bytes, and 512 are the limit"),
        ("1/\ud800", "is not UTF-8"),
    ],
)
def test_a_path_of_more_than_systems_take(tmp_path: Path, path: str, why: str) -> None:
    with pytest.raises(InvalidArgumentError, match=why) as raised:
        inside(tmp_path, path, "label_filename")
    assert len(str(raised.value)) < 250
    with pytest.raises(
        InvalidArgumentError, match=f"failed to load 'm', failed to poll from model repository: .*{why}"
    ):
        Override("m", {"1/model.onnx": b"", path: b""})


def test_the_longest_path_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    override = Override("m" * 255, {f"{'x' * 255}/{'y' * 255}": b"", "/".join(["x"] * (MAX_DEPTH + 1)): b""})
    assert (override.folder / ("x" * 255) / ("y" * 255)).is_file()
    override.remove()


@pytest.mark.parametrize("name", ["m" * 256, "é" * 128, "m" * 5000, "\ud800"])
def test_a_name_of_more_than_systems_take(name: str) -> None:
    with pytest.raises(
        InvalidArgumentError, match="model name .* (is too long: it has .* bytes, and 255|is not UTF-8)"
    ):
        check_name(name)
