from pathlib import Path

import pytest

from triune.api.model_folders import model_in, newest_version
from triune.core.errors import NotFoundError


def write(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")


def test_a_file_and_a_checkpoint_stand_for_themselves(tmp_path: Path) -> None:
    write(tmp_path, "a.onnx", "checkpoint/config.json", "checkpoint/sub/x")
    for path in (tmp_path / "a.onnx", tmp_path / "checkpoint", tmp_path / "nothing"):
        assert model_in(path) == path
        assert newest_version(path) is None


@pytest.mark.parametrize("name", ["model.onnx", "model.gguf", "model.aimodel", "model.mlpackage/Manifest.json"])
def test_the_newest_version_of_a_models_folder(tmp_path: Path, name: str) -> None:
    write(tmp_path, f"2/{name}", f"10/{name}", "9/model.onnx", "labels.txt")
    assert model_in(tmp_path) == tmp_path / "10" / name.partition("/")[0]


def test_the_file_that_the_config_names(tmp_path: Path) -> None:
    write(tmp_path, "1/model.onnx", "1/other.onnx")
    (tmp_path / "config.pbtxt").write_text('default_model_filename: "other.onnx"')
    assert model_in(tmp_path) == tmp_path / "1" / "other.onnx"


def test_a_checkpoint_in_a_version_folder(tmp_path: Path) -> None:
    write(tmp_path, "1/config.json", "1/model.safetensors")
    assert model_in(tmp_path) == tmp_path / "1"


def test_a_version_without_a_model(tmp_path: Path) -> None:
    write(tmp_path, "1/notes.txt")
    with pytest.raises(NotFoundError, match=r"has no model\.onnx or .* or model\.gguf: name the model's file"):
        model_in(tmp_path)
