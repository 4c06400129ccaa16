import json
from pathlib import Path
from typing import Any

import pytest

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreml.compiled import read_compiled
from triune.coreml.description import ArrayFeature, Bounds
from triune.coreml.mil import DType


def feature(**changes: Any) -> dict[str, Any]:
    usual = {"name": "x", "type": "MultiArray", "dataType": "Float16", "shape": "[1, 4]", "hasShapeFlexibility": "0"}
    return {key: value for key, value in {**usual, **changes}.items() if value is not None}


def write(folder: Path, *, content: Any = None, **changes: Any) -> Path:
    metadata = {"inputSchema": [feature(**changes)], "outputSchema": [feature(name="y")], "computePrecision": "Float32"}
    (folder / "metadata.json").write_text(json.dumps([metadata] if content is None else content))
    return folder


def test_fixed_and_ranged_shapes(tmp_path: Path) -> None:
    compiled = read_compiled(write(tmp_path))
    assert compiled.precision == "fp32"
    assert compiled.interface.inputs[0].type == ArrayFeature(DType.FP16, (1, 4))
    ranged = {"hasShapeFlexibility": "1", "shapeRange": "[[1, 512], [4, 4]]", "isOptional": "1", "dataType": "Int32"}
    (found,) = read_compiled(write(tmp_path, **ranged)).interface.inputs
    assert found.is_optional
    assert found.type == ArrayFeature(DType.INT32, (1, 4), bounds=(Bounds(1, 512), Bounds(4, 4)))
    listed = {"hasShapeFlexibility": "1", "enumeratedShapes": "[[1, 4], [2, 4]]"}
    (found,) = read_compiled(write(tmp_path, **listed)).interface.inputs
    assert found.type == ArrayFeature(DType.FP16, (1, 4), ((1, 4), (2, 4)))
    (found,) = read_compiled(write(tmp_path, shapeRange="[[1, -1], [4, 4]]")).interface.inputs
    assert found.type == ArrayFeature(DType.FP16, (1, 4), bounds=(Bounds(1, None), Bounds(4, 4)))


@pytest.mark.parametrize(
    "changes",
    [
        {"content": {}},
        {"content": []},
        {"content": [[]]},
        {"content": [{"inputSchema": 3}]},
        {"content": [{"inputSchema": [3], "outputSchema": []}]},
        {"name": None},
        {"shape": "[1, -4]"},
        {"shape": "[1, 4"},
        {"shape": 3},
        {"shape": "[99999999999]"},
        {"shapeRange": "[[1]]"},
        {"shapeRange": "3"},
    ],
    ids=str,
)
def test_what_is_malformed_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"metadata\.json' is not what Core ML writes"):
        read_compiled(write(tmp_path, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "Image"}, "'x': compiled models of Image features"),
        ({"dataType": "Float8"}, "'x': multi-arrays of Float8"),
        ({"hasShapeFlexibility": "1"}, "'x': its shape is flexible in a way that is not known"),
        ({"content": [{"stateSchema": [{}]}]}, "keeps states"),
    ],
    ids=str,
)
def test_what_is_not_served_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        read_compiled(write(tmp_path, **changes))


def test_without_metadata(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="cannot be read"):
        read_compiled(tmp_path)
