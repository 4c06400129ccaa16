import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from support.graphs import model_of
from support.lowered import save_renamed
from support.repositories import FP32, STRING, affine, identity, write_model
from triune import cli
from triune.core.datatypes import Array
from triune.coreml.lowering import lower


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    write_model(folder, "twice", None, v1=affine(2.0))
    write_model(folder, "text", None, v1=identity(STRING, ["b", "n"]))
    write_model(folder, "same", None, v1=identity(FP32, ["b", "n"]))
    write_model(folder, "same16", None, v1=identity(TensorProto.FLOAT16, ["b", "n"]))
    write_model(folder, "slashed", None, v1=affine(2.0, outputs="scope/y:0"))
    return folder


def infer(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """`triune infer` in this process. Returns the exit code."""
    monkeypatch.setattr("sys.argv", ["triune", "infer", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ending:
        cli.main()
    return int(ending.value.code or 0)


def saved(folder: Path, array: Array) -> Path:
    path = folder / "x.npy"
    np.save(path, array)
    return path


def test_json_stays_json_with_nan(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    x = np.array([[np.nan, np.inf, -np.inf, 1]], np.float32)
    for model, array in (("same", x), ("same16", x.astype(np.float16))):
        assert (
            infer(monkeypatch, model, "--repository", repository, f"--input=x={saved(tmp_path, array)}", "--json") == 0
        )
        answer = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
        assert answer["outputs"]["y"]["data"] == ["NaN", "Infinity", "-Infinity", 1.0]


def test_text_that_looks_like_markup_is_shown_as_it_is(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path, np.array([["[/b]", "[red]x"]]))
    assert infer(monkeypatch, "text", "--repository", repository, f"--input=x={path}") == 0
    assert "[/b], [red]x" in capsys.readouterr().out
    assert infer(monkeypatch, "text", "--repository", repository, "--input=[/x]") == 1
    assert "'[/x]' is not of the form" in capsys.readouterr().err


def test_the_other_byte_order(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path, np.array([[1, 2, 3, 4]], ">f4"))
    assert infer(monkeypatch, "twice", "--repository", repository, f"--input=x={path}", "--json") == 0
    assert json.loads(capsys.readouterr().out)["outputs"]["y"]["data"] == [2, 4, 6, 8]


def test_what_is_no_array_is_refused(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "several.npz", x=np.ones(3))
    (tmp_path / "junk.npy").write_text("hello")
    (tmp_path / "empty.npy").write_bytes(b"")
    whole = saved(tmp_path, np.ones((1, 4), np.float32)).read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-3])
    (tmp_path / "vast.npy").write_bytes(whole.replace(b"(1, 4), ", b"(1, 4000000000000), ").replace(b" " * 12, b"", 1))
    for name in ("several.npz", "junk.npy", "empty.npy", "cut.npy", "vast.npy", "missing.npy", "."):
        assert infer(monkeypatch, "twice", "--repository", repository, f"--input=x={tmp_path / name}") == 1
        errors = capsys.readouterr().err
        assert "cannot read input 'x'" in errors
        assert "numpy.save" in errors
    x = saved(tmp_path, np.ones((1, 4), np.float32))
    assert infer(monkeypatch, "twice", "--repository", repository, f"--input=x={x}", f"--input=x={x}") == 1
    assert "given twice" in capsys.readouterr().err


def test_saving(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    x = f"--input=x={saved(tmp_path, np.ones((1, 4), np.float32))}"
    assert infer(monkeypatch, "slashed", "--repository", repository, x, "--save", tmp_path / "out") == 0
    assert np.load(tmp_path / "out" / "scope%2Fy:0.npy").tolist() == [[2, 2, 2, 2]]
    assert infer(monkeypatch, "twice", "--repository", repository, x, "--save", tmp_path / "x.npy") == 1
    assert "cannot save to" in capsys.readouterr().err


def test_names_of_a_package_are_its_own_or_its_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, x = save_renamed(tmp_path), saved(tmp_path, np.ones((1, 4), np.float32))
    for name in ("in/x:0", "in_x_0"):
        for output in ("out/y:0", "out_y_0"):
            given = (f"--input={name}={x}", f"--input=plain={x}", f"--output={output}")
            assert infer(monkeypatch, path, *given, "--json") == 0
            assert json.loads(capsys.readouterr().out)["outputs"]["out_y_0"]["data"] == [2] * 4
    both = "'in_x_0' (in its source 'in/x:0')"
    for arguments, message in (
        ([f"--input=x={x}"], f"has no input 'x'; it has {both}, 'plain'"),
        ([f"--input=plain={x}"], f"input {both} is missing: give --input in_x_0=FILE, FP32[1,4]"),
        (
            [f"--input=in_x_0={x}", f"--input=plain={x}", "--output=y"],
            "has no output 'y'; it has 'out_y_0' (in its source 'out/y:0')",
        ),
    ):
        assert infer(monkeypatch, path, *arguments) == 1
        assert message in capsys.readouterr().err


def test_a_lone_file_runs_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    x = np.arange(4, dtype=np.float32).reshape(1, 4)
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", FP32, ["n", 4])],
        [helper.make_tensor_value_info("y", FP32, ["n", 4])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = tmp_path / "model with weights.onnx"
    onnx.save(model, path, save_as_external_data=True, location="w.data", size_threshold=0)
    given = f"--input=x={saved(tmp_path, x)}"
    assert infer(monkeypatch, path, given, "--json") == 0
    assert json.loads(capsys.readouterr().out)["outputs"]["y"]["data"] == [0, 1, 2, 3]
    assert infer(monkeypatch, path, given, "--classes=1", "--json") == 0
    answer = json.loads(capsys.readouterr().out)["outputs"]["y"]
    assert (answer["shape"], answer["data"]) == ([1, 1], ["3.000000:3"])
    assert infer(monkeypatch, path, given, "--version=1") == 1
    assert "give --repository" in capsys.readouterr().err
    (tmp_path / "w.data").unlink()
    assert infer(monkeypatch, path, given) == 1
    errors = capsys.readouterr().err
    assert errors.count("error") == 1
    assert f"'{path}' is not a complete ONNX model: the data of 'w' are in the file 'w.data' beside it" in errors


def test_numbers_of_rank_0_are_given_to_a_package_as_its_source_had_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = lower(model_of("agraph (float x) => (float y) { y = Neg (x) }"), tmp_path / "m.mlpackage").path
    x = saved(tmp_path, np.array(3, np.float32))
    assert infer(monkeypatch, path, f"--input=x={x}", "--json") == 0
    assert json.loads(capsys.readouterr().out)["outputs"]["y"]["data"] == [-3]
    monkeypatch.setattr("sys.argv", ["triune", "predict", str(path), f"--input=x={x}", "--json"])
    with pytest.raises(SystemExit):
        cli.main()
    assert json.loads(capsys.readouterr().out)["outputs"]["y"]["data"] == [-3]
