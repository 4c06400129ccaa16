"""The limits of free dimensions, which an asset's metadata have."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import triune
from support.graphs import model_of
from triune.core.errors import InvalidArgumentError, NotFoundError
from triune.coreai.limits import largest_batch

pytest.importorskip("coreai")


@pytest.fixture
def asset(tmp_path: Path) -> Path:
    onnx.save(model_of("g (float[n,t] x) => (float[n,t] y) { y = Neg (x) }"), tmp_path / "m.onnx")
    triune.convert(tmp_path / "m.onnx", tmp_path / "m.aimodel", shapes={"x": "1..4,2..8"})
    return tmp_path / "m.aimodel"


@pytest.mark.parametrize("shape", [(5, 2), (0, 2), (1, 9), (4, 1)])
def test_shapes_beyond_the_limits_are_refused_when_it_runs(shape: tuple[int, int], asset: Path) -> None:
    with triune.load(asset) as model:
        assert model.signature.max_batch_size == 4
        assert model.predict({"x": np.ones((4, 8), np.float32)})["y"].shape == (4, 8)
        with pytest.raises(InvalidArgumentError, match=r"input 'x' .*; it must be \[1..4,2..8\]"):
            model.predict({"x": np.ones(shape, np.float32)})


@pytest.mark.parametrize("limits", ["all", {"x": [4]}, {"x": [[[1, 2, 3], 4]]}, {"x": [["a", 4]]}])
def test_limits_that_no_conversion_writes_are_told(limits: Any, asset: Path) -> None:
    file = asset / "metadata.json"
    metadata = json.loads(file.read_text())
    metadata["creatorDefinedMetadata"]["triune.source"]["main"]["limits"] = limits
    file.write_text(json.dumps(metadata))
    for load in (triune.load, triune.coreai.load):
        with pytest.raises(InvalidArgumentError, match="the metadata 'triune.source' of 'm.aimodel' are not what"):
            load(asset)


@pytest.mark.parametrize(
    ("limits", "largest"),
    [
        ({}, None),
        ({"x": [[[1, 8], 4]]}, 8),
        ({"x": [[[1, 8], 4]], "y": [[[1, 6]]]}, 6),
        ({"x": [[1, 4], [2, 4], [3, 4]]}, 3),
        ({"x": [[1, 4], [8, 4]]}, 0),
        ({"x": [[[2, 8], 4]]}, 0),
        ({"x": [[1, 4]]}, 0),
        ({"x": [[]]}, 0),
    ],
)
def test_the_largest_batch(limits: Any, largest: int | None) -> None:
    assert largest_batch(limits) == largest


@pytest.mark.parametrize("unit", ["cpu", "ane"])
def test_variants_for_several_shapes_are_loaded_as_one_model(unit: str, tmp_path: Path) -> None:
    text = "g (float[n,t] x, float[u,3] z) => (float[n,t] y) { s = ReduceSum (z) y = Add (x, s) }"
    onnx.save(model_of(text), tmp_path / "m.onnx")
    triune.convert(tmp_path / "m.onnx", tmp_path / "m.aimodel", shapes={"x": "1,4|2,4", "z": "1..5,3"})
    ones = {"z": np.ones((2, 3), np.float32)}
    with triune.load(tmp_path / "m.aimodel", unit) as model:
        assert model.function == "main"
        assert [str(each) for each in model.signature.inputs] == ["x: FP32[-1,4]", "z: FP32[-1,3]"]
        for rows in (1, 2):
            x = np.arange(4 * rows, dtype=np.float32).reshape(rows, 4)
            np.testing.assert_array_equal(model.predict({"x": x, **ones})["y"], x + 6)
        told = r"no function for the shapes x \[3,4\], z \[2,3\]; it has x \[1,4\], z \[-1,3\]; x \[2,4\], z \[-1,3\]"
        with pytest.raises(InvalidArgumentError, match=told):
            model.predict({"x": np.ones((3, 4), np.float32), **ones})
        with pytest.raises(InvalidArgumentError, match=r"input 'z' is of shape \[6,3\]; it must be \[1..5,3\]"):
            model.predict({"x": np.ones((2, 4), np.float32), "z": np.ones((6, 3), np.float32)})
    with triune.load(tmp_path / "m.aimodel", unit, function="main_of_2x4") as model:
        assert [str(each) for each in model.signature.inputs] == ["x: FP32[2,4]", "z: FP32[-1,3]"]
    with pytest.raises(NotFoundError, match="has no function 'other'; it has 'main', 'main_of_1x4', 'main_of_2x4'"):
        triune.load(tmp_path / "m.aimodel", unit, function="other")
