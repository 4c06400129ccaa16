"""`triune convert`, both ways."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper
from typer.testing import CliRunner, Result

import triune.coreml.verify
from support.compiled_models import compile_package
from support.lowered import FLOAT, INT64, model_of
from support.mil_models import save_accumulator, save_classifier
from support.transformers import encoder
from triune.cli import app
from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreml.lowering.mb import mb
from triune.coreml.lowering.passes import pipeline
from triune.coreml.lowering.passes.mil_pass import MilPass
from triune.coreml.onnx_executor import OnnxExecutor


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
    assert "compared on made-up inputs" in home.stdout
    assert home.exit_code == 0, home.output
    assert "right" in home.stdout
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
        ["-o", "m.mlpackage", "--shape", "x=1,4", "--constant", "x=none.npy"],
        ["-o", "m.mlpackage", "--shape", "x=1,4", "--input", "x=none.npy", "--verify"],
        ["-o", "m.mlpackage", "--shape", "x=1,4", "--precision", "mixed", "--keep-fp32", "z"],
        ["-o", "m.mlpackage", "--constant", "x=1"],
        ["-o", "/dev/null/folder/m.mlpackage", "--shape", "x=1,4"],
        ["-o", "/dev/null/folder/m.aimodel", "--verify"],
    ],
)
def test_bad_options_are_refused(arguments: list[str], source: Path) -> None:
    assert isinstance(run(source, *arguments).exception, InvalidArgumentError)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x08\x00\xff\xff", "is not an ONNX model, or was cut short: its 4 bytes are not"),
        (b"", "it is empty"),
        (b"PK\x03\x04" + bytes(30), "it is a zip archive, as PyTorch's files are; export the model with torch.onnx"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(30), "it is a TensorFlow Lite model; make it ONNX with tf2onnx"),
        (ModelProto(ir_version=9).SerializeToString(), "it holds no graph"),
    ],
)
def test_files_that_are_no_models_are_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    assert reason in refused(run(path, "-o", tmp_path / "m.mlpackage"))


def test_operator_sets_begin_at_1_and_outputs_are_listed_once(source: Path, tmp_path: Path) -> None:
    model = onnx.load(source)
    model.graph.output.append(model.graph.output[0])
    onnx.save(model, tmp_path / "twice.onnx")
    assert "output 'y' is listed 2 times" in refused(run(tmp_path / "twice.onnx", "-o", tmp_path / "m.aimodel"))
    model.opset_import[0].version = 0
    onnx.save(model, tmp_path / "zero.onnx")
    assert "it imports operator set 0; the first is 1" in refused(
        run(tmp_path / "zero.onnx", "-o", tmp_path / "m.aimodel")
    )


def test_folders_on_the_way_are_made(source: Path, tmp_path: Path) -> None:
    for form in ("mlpackage", "aimodel"):
        output = tmp_path / form / "deep" / f"m.{form}"
        assert run(source, "-o", output, "--shape", "x=1,4").exit_code == 0
        assert output.is_dir()


def refused(result: Result) -> str:
    assert isinstance(result.exception, InvalidArgumentError), result.output
    return str(result.exception)


@pytest.mark.parametrize("value", ["1.5", "1e30", "100000000000000000000000"])
def test_constants_that_the_input_cannot_hold(value: str, tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["n", "n"], ["y"])]
    onnx.save(model_of(nodes, [("n", INT64, [1])], [("y", INT64, [1])]), tmp_path / "m.onnx")
    message = refused(run(tmp_path / "m.onnx", "-o", tmp_path / "m.mlpackage", "--constant", f"n={value}"))
    assert "the constant for input 'n'" in message


class ShiftedExecutor(OnnxExecutor):
    """Its answers are wrong by a tenth."""

    def run(
        self, inputs: Mapping[str, Array], states: Mapping[str, Array]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        outputs, after = super().run(inputs, states)
        return {name: array + np.float32(0.1) for name, array in outputs.items()}, after


def test_what_answers_wrongly_is_not_written(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "m.mlpackage"
    options = ["-o", package, "--shape", "x=2,4"]
    assert run(source, *options, "--verify").exit_code == 0
    written = (package / "Manifest.json").stat().st_mtime_ns
    monkeypatch.setattr(triune.coreml.verify, "OnnxExecutor", ShiftedExecutor)
    done = run(source, *options, "--verify", "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert (found["verdict"], found["written"]) == ("WRONG", False)
    assert [each["verdict"] for each in found["errors"]] == ["WRONG"]
    text = run(source, *options, "--verify")
    assert text.exit_code == 1
    assert "WRONG" in text.stdout
    assert "not written" in text.stdout
    assert (package / "Manifest.json").stat().st_mtime_ns == written
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.mlpackage", "model.onnx"]


def test_sizes_are_within_what_the_package_declares(tmp_path: Path) -> None:
    model = model_of(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        [("x", FLOAT, [1, 1, "t"])],
        [("y", FLOAT, [1, 1, "u"])],
        w=np.ones((1, 1, 16), np.float32),
    )
    path, package = tmp_path / "m.onnx", tmp_path / "m.mlpackage"
    onnx.save(model, path)
    for shape in ("x=1,1,16..64", "x=1,1,17|1,1,40"):
        there = run(path, "-o", package, "--shape", shape, "--verify")
        assert there.exit_code == 0, there.output
        home = run(package, "-o", tmp_path / "back.onnx", "--verify", "--json")
        assert home.exit_code == 0, home.output
        assert json.loads(home.stdout)["errors"][0]["verdict"] == "right"


def test_scalars_and_answers_that_tell_nothing(tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["x", "s"], ["y"]), helper.make_node("Mul", ["x", "none"], ["z"])]
    inputs = [("x", FLOAT, [2]), ("s", FLOAT, [])]
    onnx.save(model_of(nodes, inputs, [("y", FLOAT, [2]), ("z", FLOAT, [2])], none=np.float32(0)), tmp_path / "m.onnx")
    done = run(tmp_path / "m.onnx", "-o", tmp_path / "m.mlpackage", "--verify", "--json")
    assert done.exit_code == 0, done.output
    assert [each["verdict"] for each in json.loads(done.stdout)["errors"]] == ["right", "unknown"]
    assert "tells next to nothing" in run(tmp_path / "m.onnx", "-o", tmp_path / "m.mlpackage", "--verify").stdout


def test_classifiers_are_verified(tmp_path: Path) -> None:
    package = save_classifier(tmp_path)
    done = run(package, "-o", tmp_path / "m.onnx", "--verify", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["verdict"] == "right"


@pytest.fixture
def lookup(tmp_path: Path) -> Path:
    """A table of 3 rows and of 1 row, by an index of (n,) each; what is made up, zeros and ones, does not suit it."""
    nodes = [
        helper.make_node("Sub", ["a", "ten"], ["index"]),
        helper.make_node("Gather", ["rows", "index"], ["found"]),
        helper.make_node("Add", ["found", "b"], ["y"]),
    ]
    inputs = [("a", INT64, ["n"]), ("b", FLOAT, ["n", 2])]
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    path = tmp_path / "lookup.onnx"
    onnx.save(model_of(nodes, inputs, [("y", FLOAT, ["n", 2])], rows=rows, ten=np.array(10)), path)
    return path


def test_inputs_to_verify_with(lookup: Path, tmp_path: Path) -> None:
    """What is given is computed; of the rest, dimensions of the same name have the same size."""
    package, back = tmp_path / "m.mlpackage", tmp_path / "back.onnx"
    np.save(tmp_path / "a.npy", np.array([10, 12, 11, 12, 10]))
    shapes = ["--shape", "a=1..8", "--shape", "b=1..8,2"]
    nothing = run(lookup, "-o", package, *shapes, "--verify")
    assert isinstance(nothing.exception, UnsupportedError)
    assert "give inputs that it takes with --input" in str(nothing.exception)
    result = run(lookup, "-o", package, *shapes, "--verify", "--input", f"a={tmp_path / 'a.npy'}", "--json")
    assert result.exit_code == 0, result.output
    (error,) = json.loads(result.stdout)["errors"]
    assert error["shape"] == [5, 2]
    assert error["error"] < 1e-6
    assert 4 < error["largest"] < 7
    np.save(tmp_path / "a.npy", np.array([10, 12, 11], np.int32))
    home = run(package, "-o", back, "--verify", "--input", f"a={tmp_path / 'a.npy'}", "--json")
    assert home.exit_code == 0, home.output
    assert json.loads(home.stdout)["errors"][0]["shape"] == [3, 2]


@pytest.mark.parametrize(
    ("name", "array", "options", "message"),
    [
        ("c", np.zeros(1, np.int64), ["--verify"], "there is no input 'c' to give; the inputs are 'a', 'b'"),
        ("rows", np.zeros((3, 2), np.float32), ["--verify"], "there is no input 'rows' to give"),
        ("a", np.zeros(1, np.int64), [], "inputs (--input) are what verify and check compare with"),
        ("a", np.zeros(1, np.float64), ["--verify"], "'a' is given as float64; the model takes int64"),
        ("a", np.zeros((1, 1), np.int64), ["--verify"], "'a' has shape [1, 1]; the model takes [n]"),
        ("b", np.zeros((1, 3), np.float32), ["--verify"], "'b' has shape [1, 3]; the model takes [n, 2]"),
        (
            "a",
            np.full(9, 10),
            ["--verify"],
            "'a' has shape [9]; the package takes [1..8]: give another array, or other",
        ),
        ("a", np.full(1, 10), ["--verify", "--constant", "a=10"], "'a' is given, and becomes a constant"),
    ],
)
def test_inputs_that_do_not_suit_the_model(
    name: str, array: np.ndarray, options: list[str], message: str, lookup: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "given.npy", array)
    shapes = ["--shape", "b=1..8,2"] + ["--shape", "a=1..8"] * ("--constant" not in options)
    given = ["--input", f"{name}={tmp_path / 'given.npy'}"]
    assert message in refused(run(lookup, "-o", tmp_path / "m.mlpackage", *shapes, *given, *options))


def test_inputs_of_a_package(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[3, 4]], np.float16))
    np.save(tmp_path / "total.npy", np.array([[1, 1]], np.float16))
    given = ["--input", f"x={tmp_path / 'x.npy'}", "--input", f"total={tmp_path / 'total.npy'}"]
    result = run(save_accumulator(tmp_path), "-o", tmp_path / "m.onnx", "--verify", *given, "--json")
    assert result.exit_code == 0, result.output
    assert {each["output"]: each["largest"] for each in json.loads(result.stdout)["errors"]} == {"y": 5, "total/new": 5}


class HalfOfTheLast(MilPass):
    """A pass that is wrong: every softmax comes out halved."""

    name = "half_of_the_last"

    def change(self, program: Any) -> None:
        for function in program.functions.values():
            with function:
                for op in list(function.operations):
                    if op.op_type == "softmax":
                        whole = mb.softmax(x=op.x, axis=op.axis.val, before_op=op)
                        half = mb.mul(x=whole, y=np.float32(0.5), before_op=op)
                        function.replace_uses_of_var_after_op(anchor_op=op, old_var=op.outputs[0], new_var=half)
                        function.remove_ops([op])


def test_a_pass_that_changes_an_answer_is_named_and_nothing_is_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "m.mlpackage"
    options = ["-o", package, "--shape", "x=2,4", "--check"]
    assert "no pass changes an answer" in run(source, *options).output
    package.rename(tmp_path / "right.mlpackage")
    monkeypatch.setattr(pipeline, "PASSES", (HalfOfTheLast(), *pipeline.PASSES))
    done = run(source, *options, "--json")
    assert done.exit_code == 1
    assert not package.exists()
    found = json.loads(done.stdout)
    assert not found["written"]
    assert {(each["pass"], each["output"]) for each in found["findings"]} == {("half_of_the_last", "y")}
    first = found["findings"][0]
    assert float(first["after"]) == pytest.approx(float(first["before"]) / 2)
    assert "half_of_the_last changes output 'y'" in run(source, *options).output
