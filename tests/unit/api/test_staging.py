"""What is written takes the place of what it may replace, and of nothing else."""

from pathlib import Path

import pytest

from triune.api.staging import publish, require_replaceable, staged, write_text
from triune.core.errors import InvalidArgumentError

_NAMES = ["out", "out.onnx", "out.html", "out.mlpackage", "out.aimodel"]


@pytest.mark.parametrize("name", _NAMES)
def test_folders_with_other_things_in_them_are_not_replaced(name: str, tmp_path: Path) -> None:
    """They were removed with all that was in them."""
    output = tmp_path / name
    (output / "Data").mkdir(parents=True)
    for each in ("thesis.txt", "config.json", "Manifest.json", "main.mlirb"):
        (output / each).write_text("mine")
    with pytest.raises(InvalidArgumentError, match=r"' in it, which would be lost with it: name another place"):
        require_replaceable(output)
    with pytest.raises(InvalidArgumentError, match=f"'{output}' is a folder"):
        staged(output).__enter__()
    assert (output / "thesis.txt").read_text() == "mine"
    assert [each.name for each in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("out", []),
        ("out", ["config.json", "tokenizer.json", "model.safetensors", "chat_template.jinja"]),
        ("out.mlpackage", ["Manifest.json", "Data"]),
        ("out.aimodel", ["main.mlirb", "main.hash", "metadata.json", ".DS_Store"]),
    ],
)
def test_models_are_replaced(name: str, parts: list[str], tmp_path: Path) -> None:
    output = tmp_path / name
    output.mkdir()
    for each in parts:
        (output / each).write_text("old")
    with staged(output) as path:
        path.mkdir()
        (path / "new").write_text("new")
        publish(path, output)
    assert [each.name for each in output.iterdir()] == ["new"]


def test_a_text_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "out.html"
    write_text(path, "one")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "two\ud800")
    assert path.read_text() == "one"
    assert [each.name for each in path.parent.iterdir()] == ["out.html"]
    with pytest.raises(InvalidArgumentError, match="is a folder, and a file is to be written: name another place"):
        write_text(tmp_path / "deep", "three")
    with pytest.raises(InvalidArgumentError, match="'/dev/full' cannot be written: No space left on device"):
        write_text(Path("/dev/full"), "four")
