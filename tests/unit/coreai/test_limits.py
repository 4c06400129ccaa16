"""The limits of free dimensions, which an asset's metadata have."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import triune
from support.graphs import model_of
from triune.core.errors import InvalidArgumentError
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
