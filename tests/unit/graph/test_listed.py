"""Constants in other files, whose elements shape inference does not read."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import triune
from support.lowered import model_of


@pytest.mark.parametrize("op_type", ["Expand", "Tile"])
def test_a_constant_in_another_file_may_be_repeated(op_type: str, tmp_path: Path) -> None:
    model = model_of(
        [
            helper.make_node("Shape", ["x"], ["rows"], end=1),
            helper.make_node("Concat", ["rows", "one"], ["sizes"], axis=0),
            helper.make_node(op_type, ["token", "sizes"], ["tokens"]),
            helper.make_node("Concat", ["tokens", "x"], ["y"], axis=1),
        ],
        [("x", TensorProto.FLOAT, ["rows", 2])],
        [("y", TensorProto.FLOAT, ["rows", 302])],
        token=np.ones((1, 300), np.float32),
        one=np.array([1]),
    )
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, size_threshold=0)
    with triune.load(path, "cpu") as loaded:
        answer = loaded.run({"x": np.zeros((3, 2), np.float32)})["y"]
    assert answer.shape == (3, 302)
    assert answer[:, :300].all()
