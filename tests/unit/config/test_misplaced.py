from pathlib import Path

import pytest

from triune.config.configure import configure, read_source
from triune.config.stamps import stamp
from triune.core.errors import InvalidArgumentError
from triune.runtimes.machine import this_machine

MACHINE = this_machine()


def load(folder: Path) -> None:
    configure(read_source("m", folder, stamp(folder)), 1, MACHINE)


def write(folder: Path, path: str, config: str = "") -> Path:
    file = folder / "m" / path
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    if config:
        (folder / "m" / "config.pbtxt").write_text(config)
    return folder / "m"


@pytest.mark.parametrize(
    ("path", "config", "message"),
    [
        ("1/small.gguf", "", "it has 'small.gguf': rename it to 'model.gguf', or name it in 'default_model_filename'"),
        ("1/net.onnx", "", "it has 'net.onnx': rename it to 'model.onnx'"),
        ("1/net.onnx", 'backend: "onnxruntime"', "it has 'net.onnx': rename it to 'model.onnx'"),
        ("small.gguf", "", "'small.gguf' belongs in a version folder: move it to 'm/1/model.gguf'"),
        ("net.onnx", "", "'net.onnx' belongs in a version folder: move it to 'm/1/model.onnx'"),
        ("v1/model.gguf", "", "its folder has no version$"),
        ("model.safetensors", "", "the files of a checkpoint belong in a version folder: move them to 'm/1'"),
        ("1/notes.txt", "", r"config.json with \*.safetensors$"),
    ],
)
def test_what_was_found_is_named_with_where_it_belongs(tmp_path: Path, path: str, config: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        load(write(tmp_path, path, config))
