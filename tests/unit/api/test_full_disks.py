"""Models that the disk does not take. A limit on the size of files stands for it: vendors' libraries meet it, too."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import triune
from support.lowered import FLOAT, model_of

_SCRIPT = """
import resource, signal, sys
import triune
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    form = {"weights": "int8", "force": True} if sys.argv[1] == "compress" else {}
    getattr(triune, sys.argv[1])(sys.argv[2], sys.argv[3], **form)
except triune.InvalidArgumentError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    weight = np.random.default_rng(0).standard_normal((512, 256)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    onnx.save(model_of(nodes, [("x", FLOAT, [1, 512])], [("y", FLOAT, [1, 256])], w=weight), folder / "source.onnx")
    triune.convert(folder / "source.onnx", folder / "source.mlpackage")
    return folder


@pytest.mark.parametrize(
    ("function", "source", "target"),
    [
        ("convert", "source.onnx", "out.mlpackage"),
        ("convert", "source.mlpackage", "out.onnx"),
        ("optimize", "source.onnx", "out.onnx"),
        ("optimize", "source.mlpackage", "out.onnx"),
        ("compress", "source.onnx", "out.onnx"),
        ("compress", "source.onnx", "out.mlpackage"),
    ],
)
def test_the_target_is_named_and_what_was_there_stays(function: str, source: str, target: str, folder: Path) -> None:
    before = sorted(each.name for each in folder.iterdir())
    (folder / target).write_text("before")
    command = [sys.executable, "-c", _SCRIPT, function, str(folder / source), str(folder / target)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{target}'" in found.stdout, found.stderr
    assert "cannot" in found.stdout
    assert (folder / target).read_text() == "before"
    (folder / target).unlink()
    assert sorted(each.name for each in folder.iterdir()) == before


def test_what_a_killed_process_left_is_removed_by_the_next(folder: Path, tmp_path: Path) -> None:
    """Core AI's library ends the process where it cannot write."""
    command = [sys.executable, "-c", _SCRIPT, "convert", str(folder / "source.onnx"), str(tmp_path / "out.aimodel")]
    subprocess.run(command, capture_output=True, check=False)
    triune.convert(folder / "source.onnx", tmp_path / "out.aimodel")
    assert [each.name for each in tmp_path.iterdir()] == ["out.aimodel"]
