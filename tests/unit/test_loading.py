"""`triune.load`: one model on one unit."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import triune
from support.lowered import FLOAT, model_of
from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from triune.core.units import Unit
from triune.coreai.lowering import lower as lower_to_coreai
from triune.coreml.lowering import lower as lower_to_coreml

X = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.fixture
def model() -> Any:
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    return model_of(nodes, [("x", FLOAT, [2, 4])], [("y", FLOAT, [2, 4])])


def _save(model: Any, path: Path) -> Path:
    match path.suffix:
        case ".onnx":
            onnx.save(model, path)
        case ".mlpackage":
            lower_to_coreml(model, path)
        case _:
            lower_to_coreai(model, path)
    return path


@pytest.mark.parametrize("suffix", [".onnx", ".mlpackage", ".aimodel"])
@pytest.mark.parametrize("unit", ["cpu", "ane"])
def test_every_form_runs_on_the_units_that_are_named(
    suffix: str, unit: str, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIUNE_CACHE", str(tmp_path / "cache"))
    with triune.load(_save(model, tmp_path / f"model{suffix}"), units=[unit]) as loaded:
        assert loaded.unit is Unit(unit)
        assert loaded.is_emulated == (unit == "ane")
        np.testing.assert_array_equal(loaded.run({"x": X})["y"], 2 * X)


def test_the_best_unit_is_never_an_emulated_one(model: Any, tmp_path: Path) -> None:
    with triune.load(_save(model, tmp_path / "model.onnx")) as loaded:
        assert not loaded.is_emulated


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ({}, "'x' is missing"),
        ({"x": X, "z": X}, "no input 'z'"),
        ({"x": X.astype(np.float64)}, r"FP64\[2,4\]; the model takes x: FP32\[2,4\]"),
        ({"x": X[:1]}, r"FP32\[1,4\]"),
    ],
)
def test_wrong_inputs(inputs: Any, told: str, model: Any, tmp_path: Path) -> None:
    with triune.load(_save(model, tmp_path / "model.onnx")) as loaded:
        with pytest.raises(InvalidArgumentError, match=told):
            loaded.run(inputs)
        with pytest.raises(InvalidArgumentError, match="no output 'q'"):
            loaded.run({"x": X}, ["q"])


def test_what_cannot_be_loaded(model: Any, tmp_path: Path) -> None:
    path = _save(model, tmp_path / "model.onnx")
    with pytest.raises(NotFoundError):
        triune.load(tmp_path / "other.onnx")
    with pytest.raises(InvalidArgumentError, match=r"ends in none of \.onnx"):
        triune.load(tmp_path)
    with pytest.raises(InvalidArgumentError, match="'tpu'"):
        triune.load(path, ["tpu"])
    with pytest.raises(UnsupportedError, match="unit 'gpu' is absent"):
        triune.load(path, ["gpu"])
