"""`triune convert` and `triune predict` with `.aimodel`."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image
from typer.testing import CliRunner, Result

from support.apple_interpreter import described
from support.coreai_programs import image_type, save_graph
from support.lowered import FLOAT, model_of
from triune.cli import app
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreai import audit
from triune.graph.audit import Difference, Finding

pytestmark = pytest.mark.usefixtures("converts_here")


@pytest.fixture(autouse=True)
def describes_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of its own takes longer to import Apple's library than most of these commands take."""
    for module in ("coreai.model", "coreai.raising.function", "api.models"):
        monkeypatch.setattr(f"triune.{module}.describe", described)


def run(command: str, *arguments: object) -> Result:
    return CliRunner().invoke(app, [command, *map(str, arguments)], catch_exceptions=True)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    nodes = [helper.make_node("Add", ["past", "x"], ["present"]), helper.make_node("Neg", ["present"], ["y"])]
    values = [(name, FLOAT, [1, 4]) for name in ("past", "x", "present", "y")]
    path = tmp_path / "model.onnx"
    onnx.save(model_of(nodes, values[:2], values[2:]), path)
    return path


def test_there_and_back_again_with_apple_as_the_referee(source: Path, tmp_path: Path) -> None:
    asset, back = tmp_path / "m.aimodel", tmp_path / "back.onnx"
    there = run("convert", source, "-o", asset, "--state", "past=present", "--verify", "--json")
    assert there.exit_code == 0, there.output
    assert {each["output"]: each["error"] for each in json.loads(there.stdout)["errors"]} == {"present": 0, "y": 0}
    home = run("convert", asset, "-o", back, "--verify", "--json")
    assert home.exit_code == 0, home.output
    assert {each["output"]: each["error"] for each in json.loads(home.stdout)["errors"]} == {"y": 0, "past/new": 0}


def test_back_again_within_the_limits_of_the_program_and_without_dividing_by_zero(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceSum", ["x", "axes"], ["s"]),
        helper.make_node("Div", ["a", "b"], ["q"]),
        helper.make_node("Mod", ["a", "b"], ["r"]),
    ]
    whole = TensorProto.INT32
    model = model_of(
        nodes,
        [("x", FLOAT, [1, "n"]), ("a", whole, [4]), ("b", whole, [4])],
        [("s", FLOAT, [1, 1]), ("q", whole, [4]), ("r", whole, [4])],
        axes=np.array([1]),
    )
    onnx.save(model, tmp_path / "m.onnx")
    asset, back = tmp_path / "m.aimodel", tmp_path / "back.onnx"
    assert run("convert", tmp_path / "m.onnx", "-o", asset, "--shape", "x=1,32..64", "--verify").exit_code == 0
    result = run("convert", asset, "-o", back, "--verify", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["errors"][0]["verdict"] == "right"
    np.save(tmp_path / "b.npy", np.array([0, 1, 2, 0], np.int32))
    result = run("convert", asset, "-o", back, "--verify", "--input", f"b={tmp_path / 'b.npy'}")
    assert result.exit_code != 0
    assert "divided by zero" in str(result.exception or result.output)


def test_images_are_files_on_the_way_in_and_tensors_of_bytes_in_onnx(tmp_path: Path) -> None:
    asset, back, picture = tmp_path / "m.aimodel", tmp_path / "back.onnx", tmp_path / "x.png"
    save_graph(asset, ["x"], lambda: [image_type("BGRA32", 1, 2)], lambda x: x)
    Image.new("RGB", (2, 1), (1, 2, 3)).save(picture)
    shown = run("predict", asset, "--input", f"x={picture}", "--executor", "onnxruntime", "--json")
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["outputs"]["y0"]["data"] == [3, 2, 1, 255] * 2
    missing = run("predict", asset, "--executor", "onnxruntime")
    assert "an image (k32BGRA) of 2x1" in str(missing.exception)
    assert run("convert", asset, "-o", back).exit_code == 0
    if sys.platform == "linux":
        # No referee here: it is said, and what was converted stays.
        for told in (
            ("predict", asset, "--input", f"x={picture}", "--executor", "interpreter"),
            ("convert", asset, "-o", back, "--verify"),
        ):
            error = run(*told).exception
            assert isinstance(error, UnsupportedError)
            assert "Apple's library takes none on this system" in str(error)
    (value,) = onnx.load(back).graph.input
    assert value.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [dim.dim_value for dim in value.type.tensor_type.shape.dim] == [1, 2, 4]


def test_floats_become_images_and_what_judged_them_is_said(tmp_path: Path) -> None:
    source, asset, x = tmp_path / "model.onnx", tmp_path / "m.aimodel", tmp_path / "x.npy"
    values = [(name, FLOAT, [1, 3, 2, 4]) for name in ("x", "y")]
    onnx.save(model_of([helper.make_node("Neg", ["x"], ["y"])], values[:1], values[1:]), source)
    options = ("-o", asset, "--image", "x=argb32,scale=-0.5,bias=1|2|3", "--image", "y=bgra32", "--verify", "--json")
    done = run("convert", source, *options)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    (error,) = told["errors"]
    assert (error["output"], error["shape"], error["error"]) == ("y", [1, 3, 2, 4], 0)
    # Else all of it were cut off at 0, and the comparison could not fail.
    assert error["largest"] > 100
    if sys.platform == "linux":
        assert told["notes"] == [
            "Apple's interpreter takes no images on this system: what was compared is the program raised to ONNX again"
        ]
    np.save(x, np.full((1, 3, 2, 4), 5, np.float32))
    error = run("convert", source, *options, "--input", f"x={x}").exception
    assert isinstance(error, InvalidArgumentError)
    assert "not bytes * -0.5 + [1.0, 2.0, 3.0]: it is from 5 to 5" in str(error)


def test_several_functions_in_one_asset(source: Path, tmp_path: Path) -> None:
    asset = tmp_path / "m.aimodel"
    done = run(
        "convert", source, "-o", asset, "--function", "prefill", "--add", f"decode={source}", "--verify", "--json"
    )
    assert done.exit_code == 0, done.output
    names = [each["output"] for each in json.loads(done.stdout)["errors"]]
    assert names == ["prefill: present", "prefill: y", "decode: present", "decode: y"]
    x, past = tmp_path / "x.npy", tmp_path / "past.npy"
    np.save(x, np.ones((1, 4), np.float32))
    np.save(past, np.ones((1, 4), np.float32))
    shown = run("predict", asset, "--function", "decode", "--input", f"x={x}", "--input", f"past={past}", "--json")
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    assert (found["function"], found["executor"]) == ("decode", "onnxruntime")
    assert found["outputs"]["y"]["data"] == [-2.0] * 4


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("-o", "m.mlpackage", "--pack-weights"), "images (--image) and packed weights (--pack-weights) are for"),
        (("-o", "m.aimodel", "--target", "iOS17"), "(--target) is for .mlpackage"),
        (("-o", "m.aimodel", "--state", "past"), "past=present"),
        (("-o", "m.aimodel", "--state", "post=present"), "no input 'post'; the inputs are 'past', 'x'"),
        (("-o", "m.aimodel", "--add", "main=other.onnx"), "function 'main' is named twice"),
        (("-o", "m.aimodel", "--shape", "z=1"), "no input 'z'"),
        (
            ("-o", "m.mlpackage", "--image", "x=rgb24"),
            "images (--image) and packed weights (--pack-weights) are for .aimodel",
        ),
        (("-o", "m.aimodel", "--image", "z=rgb24"), "no 'z' to be an image; inputs and outputs are 'past', 'x', "),
        (("-o", "m.aimodel", "--image", "x"), "x=rgb24"),
        (("-o", "m.model"), "one is .onnx, the other .mlpackage or .aimodel"),
    ],
)
def test_options_that_do_not_go_together(arguments: tuple[str, ...], told: str, source: Path) -> None:
    done = run("convert", source, *arguments)
    assert isinstance(done.exception, InvalidArgumentError)
    assert told in str(done.exception)


def test_executors_are_those_of_the_program(source: Path, tmp_path: Path) -> None:
    asset = tmp_path / "m.aimodel"
    assert run("convert", source, "-o", asset).exit_code == 0
    done = run("predict", asset, "--executor", "reference")
    assert isinstance(done.exception, InvalidArgumentError)
    assert "takes coreai, onnxruntime or interpreter" in str(done.exception)


def test_what_the_rewriting_changes_is_told_and_nothing_is_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = Finding("Core AI's rewriting", "y", "noise", Difference("0", "5", (1,), np.inf))
    found: list[Finding] = []
    monkeypatch.setattr(audit, "audit", lambda source, path, function, given: found)
    asset = tmp_path / "m.aimodel"
    assert "no pass changes an answer" in run("convert", source, "-o", asset, "--check").output
    shutil.rmtree(asset)
    found.append(fault)
    done = run("convert", source, "-o", asset, "--check")
    assert done.exit_code == 1
    assert "Core AI's rewriting changes output 'y' at [1] from 0 to 5" in done.output
    assert not asset.exists()
