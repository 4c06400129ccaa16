"""`triune convert`, both ways."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from typer.testing import CliRunner, Result

from support.compiled_models import compile_package
from support.lowered import FLOAT, INT64, model_of
from support.transformers import encoder
from triune.cli import app
from triune.core.errors import InvalidArgumentError, UnsupportedError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="product"),
        helper.make_node("Softmax", ["a"], ["y"], name="shares"),
    ]
    weights = np.random.default_rng(0).random((4, 3), np.float32)
    path = tmp_path / "model.onnx"
    onnx.save(model_of(nodes, [("x", FLOAT, ["n", 4])], [("y", FLOAT, ["n", 3])], w=weights), path)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["convert", *map(str, arguments)], catch_exceptions=True)


def test_there_and_back_again(source: Path, tmp_path: Path) -> None:
    package, back = tmp_path / "m.mlpackage", tmp_path / "back.onnx"
    there = run(source, "-o", package, "--shape", "x=1..8,4", "--verify", "--json")
    assert there.exit_code == 0, there.output
    (error,) = json.loads(there.stdout)["errors"]
    assert error["output"] == "y"
    assert error["shape"] == [3, 3]
    assert error["error"] < 1e-6
    home = run(package, "-o", back, "--verify")
    assert home.exit_code == 0, home.output
    assert "largest error" in home.stdout
    assert [value.name for value in onnx.load(back).graph.input] == ["x"]
    compiled = compile_package(package, tmp_path / "m.mlmodelc")
    assert run(compiled, "-o", tmp_path / "again.onnx", "--verify").exit_code == 0
    assert onnx.load(tmp_path / "again.onnx").graph == onnx.load(back).graph


def test_precision_is_chosen(source: Path, tmp_path: Path) -> None:
    package = tmp_path / "m.mlpackage"
    options = ["--shape", "x=2,4", "--verify", "--json", "--target", "iOS16"]
    half = run(source, "-o", package, *options, "--precision", "fp16")
    (error,) = json.loads(half.stdout)["errors"]
    assert 0 < error["error"] < 1e-2
    kept = ["--keep-fp32", "product", "--keep-fp32", "Softmax"]
    mixed = run(source, "-o", package, *options, "--precision", "mixed", *kept)
    (error,) = json.loads(mixed.stdout)["errors"]
    assert error["error"] < 1e-6


def test_the_neural_engines_layout_is_told_of(tmp_path: Path) -> None:
    path, package = tmp_path / "encoder.onnx", tmp_path / "m.mlpackage"
    path.write_bytes(encoder("thirds").SerializeToString())
    done = run(path, "-o", package, "--shape", "x=1,4,32", "--layout", "ane", "--verify", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["errors"][0]["error"] < 1e-5
    assert found["layout"]["changed"]["linear_to_conv"] == 2
    assert found["layout"]["left"] == []
    text = run(path, "-o", package, "--shape", "x=1,4,32", "--layout", "ane").stdout
    assert "layout changed: linear_to_conv 2, split_heads 1" in text


def test_inputs_become_constants(tmp_path: Path) -> None:
    model = model_of(
        [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)],
        [("x", FLOAT, [2, 3]), ("axes", INT64, [1])],
        [("y", FLOAT, [2])],
    )
    path, package = tmp_path / "m.onnx", tmp_path / "m.mlpackage"
    onnx.save(model, path)
    refused = run(path, "-o", package)
    assert isinstance(refused.exception, UnsupportedError)
    assert "ReduceSum" in str(refused.exception)
    result = run(path, "-o", package, "--constant", "axes=1", "--verify")
    assert result.exit_code == 0, result.output
    np.save(tmp_path / "axes.npy", np.array([1]))
    result = run(path, "-o", package, "--constant", f"axes={tmp_path / 'axes.npy'}", "--verify")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["-o", "m.onnx"],
        ["-o", "m.mlpackage", "--shape", "x"],
        ["-o", "m.mlpackage", "--shape", "z=1,4"],
        ["-o", "m.mlpackage", "--shape", "x=1,4", "--target", "iOS3"],
        ["-o", "m.mlpackage", "--shape", "x=1,4", "--keep-fp32", "Softmax"],
        ["-o", "m.mlpackage", "--shape", "x=1,4", "--constant", "x=a"],
        ["-o", "m.mlpackage", "--shape", "x=1,4", "--function", "main"],
    ],
)
def test_bad_options_are_refused(arguments: list[str], source: Path) -> None:
    assert isinstance(run(source, *arguments).exception, InvalidArgumentError)


def test_files_that_are_no_models_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"\x08\x00\xff\xff")
    assert isinstance(run(path, "-o", tmp_path / "m.mlpackage").exception, InvalidArgumentError)
