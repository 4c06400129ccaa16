import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.compiled_models import compile_package
from support.lowered import save_renamed
from support.mil_models import save_accumulator, save_affine, save_classifier, save_functions, save_image_model
from triune import cli
from triune.core.datatypes import Array


def predict(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """`triune predict` in this process, with the reference executor. Returns the exit code."""
    monkeypatch.setattr("sys.argv", ["triune", "predict", *map(str, arguments), "--executor", "reference"])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ending:
        cli.main()
    return int(ending.value.code or 0)


def saved(folder: Path, array: Array) -> Path:
    path = folder / "x.npy"
    np.save(path, array)
    return path


def test_prints_the_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    x = saved(tmp_path, np.ones((2, 3)))
    assert predict(monkeypatch, save_affine(tmp_path), f"--input=x={x}") == 0
    shown = capsys.readouterr().out
    assert "float32[2, 3]" in shown
    assert "[3. 3. 3. 3. 3. 3.]" in shown
    assert "computed by reference" in shown


def test_prints_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    x = saved(tmp_path, np.array([[np.nan, np.inf, 1], [0, 0, 0]]))
    path = save_affine(tmp_path)
    assert predict(monkeypatch, path, f"--input=x={x}", "--json") == 0
    answer = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert answer.pop("elapsed_ms") > 0
    assert answer == {
        "program": str(path),
        "function": "main",
        "executor": "reference",
        "outputs": {"y": {"datatype": "float32", "shape": [2, 3], "data": ["NaN", "Infinity", 3, 1, 1, 1]}},
    }


def test_what_core_ml_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    x = saved(tmp_path, np.ones((2, 3)))
    path = compile_package(save_affine(tmp_path), tmp_path / "m.mlmodelc")
    assert predict(monkeypatch, path, f"--input=x={x}") == 0
    assert "[3. 3. 3. 3. 3. 3.]" in capsys.readouterr().out
    (path / "model.mil").write_text("program(1.0)\n{ func main<ios16>( }")
    assert predict(monkeypatch, path, f"--input=x={x}") != 0
    assert "line 2, column 21: a type is expected, not '}'" in capsys.readouterr().err


def test_saves_the_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = saved(tmp_path, np.ones((2, 3)))
    assert predict(monkeypatch, save_affine(tmp_path), f"--input=x={x}", "--save", tmp_path / "out") == 0
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "y.npy"), np.full((2, 3), 3))


def test_classes_images_states_and_functions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    x = saved(tmp_path, np.array([[1, 3, 2]]))
    path = save_classifier(tmp_path)
    assert predict(monkeypatch, path, f"--input=x={x}", "--json", "--save", tmp_path) == 0
    outputs = json.loads(capsys.readouterr().out)["outputs"]
    assert outputs["classLabel"] == "bee"
    assert outputs["classLabel_probs"]["bee"] == pytest.approx(0.66524, abs=1e-4)
    assert np.load(tmp_path / "classLabel.npy") == "bee"
    assert predict(monkeypatch, path, f"--input=x={x}") == 0
    assert "bee 0.6652, cat 0.2447, ant 0.0900" in capsys.readouterr().out

    photo = tmp_path / "photo.png"
    Image.fromarray(np.full((4, 5, 3), 250, np.uint8)).save(photo)
    path = save_image_model(tmp_path)
    assert predict(monkeypatch, path, f"--input=x={photo}", "--save", tmp_path) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), np.full((4, 5, 3), 5))
    capsys.readouterr()

    x = saved(tmp_path, np.array([[1, 2]]))
    assert predict(monkeypatch, save_accumulator(tmp_path), f"--input=x={x}", "--json") == 0
    assert json.loads(capsys.readouterr().out)["outputs"]["y"]["data"] == [1, 2]

    x = saved(tmp_path, np.ones((2, 3)))
    assert predict(monkeypatch, save_functions(tmp_path), f"--input=x={x}", "--function", "thrice", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["function"] == "thrice"
    assert answer["outputs"]["y"]["data"] == [4] * 6


def test_what_is_wrong_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, x = save_affine(tmp_path), saved(tmp_path, np.ones((3, 2)))
    (tmp_path / "broken.png").write_bytes(b"no image")
    # coremltools may have shown its progress.
    capsys.readouterr()
    for arguments, message in (
        ([path, f"--input=x={x}"], "'x' has shape [3, 2]; it must have [2, 3]"),
        ([path], "input 'x' is missing: give --input x=FILE, fp32 of [2, 3]"),
        ([path, f"--input=z={x}"], "has no input 'z'; it has 'x'"),
        ([path, "--input=x"], "'x' is not of the form name=file.npy"),
        ([path, f"--input=x={x}", f"--input=x={x}"], "--input 'x' is given twice"),
        ([path, f"--input=x={tmp_path / 'none.npy'}"], "cannot read input 'x'"),
        ([path, f"--input=x={tmp_path / 'broken.png'}"], "give a .npy array or an image"),
        ([path, f"--input=x={x}", "--function", "second"], "no function 'second'"),
        ([tmp_path / "none.mlpackage", f"--input=x={x}"], "there is no Core ML package"),
    ):
        assert predict(monkeypatch, *arguments) == 1
        error = capsys.readouterr().err
        assert message in error
        assert len(error.strip().splitlines()) == 1


def test_names_are_the_programs_or_its_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, x = save_renamed(tmp_path), saved(tmp_path, np.ones((1, 4), np.float32))
    for name in ("in/x:0", "in_x_0"):
        assert predict(monkeypatch, path, f"--input={name}={x}", f"--input=plain={x}", "--json") == 0
        assert json.loads(capsys.readouterr().out)["outputs"]["out_y_0"]["data"] == [2] * 4
    both = "'in_x_0' (in its source 'in/x:0')"
    for arguments, message in (
        ([f"--input=x={x}"], f"has no input 'x'; it has {both}, 'plain'"),
        ([f"--input=plain={x}"], f"input {both} is missing: give --input in_x_0=FILE, fp32 of [1, 4]"),
        ([f"--input=in_x_0={x}", f"--input=in/x:0={x}"], f"input {both} is given twice, once by each name"),
    ):
        assert predict(monkeypatch, path, *arguments) == 1
        assert message in capsys.readouterr().err


def test_what_is_no_program_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.onnx").write_bytes(b"")
    assert predict(monkeypatch, tmp_path / "m.onnx") == 1
    assert (
        "m.onnx' ends in none of .mlpackage, .mlmodelc, .mlmodel, .aimodel; an .onnx file is run by 'triune infer'"
        in (capsys.readouterr().err)
    )
