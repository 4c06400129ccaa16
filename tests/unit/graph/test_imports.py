from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from support.graphs import answers
from triune.graph.load import load, require_valid
from triune.graph.normalize import normalize


@pytest.mark.parametrize(
    ("nodes", "imported"),
    [
        ([("Binarizer", "ai.onnx.ml"), ("Identity", "")], ("ai.onnx.ml", 2)),
        ([("Identity", ""), ("Binarizer", "ai.onnx.ml")], ("", 17)),
        ([("Identity", ""), ("Gelu", "com.microsoft")], ("ai.onnx.ml", 2)),
        ([("Identity", ""), ("Relu", "")], ("", 17)),
        ([("Binarizer", "ai.onnx.ml"), ("Binarizer", "ai.onnx.ml")], ("ai.onnx.ml", 2)),
    ],
)
def test_operator_sets_that_are_not_imported_are_the_newest(
    tmp_path: Path, nodes: list[tuple[str, str]], imported: tuple[str, int]
) -> None:
    made = [
        helper.make_node(name, [a], [b], domain=domain) for (name, domain), a, b in zip(nodes, "xm", "my", strict=True)
    ]
    x, y = (helper.make_tensor_value_info(name, 1, [4]) for name in "xy")
    graph = helper.make_graph(made, "g", [x], [y])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid(*imported)], ir_version=8), tmp_path / "m.onnx"
    )
    values = np.array([-1, 0, 0.5, 2], np.float32)
    (expected,) = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {"x": values})
    model = load(tmp_path / "m.onnx")
    require_valid(model)
    assert model.opset_import[0] == helper.make_opsetid(*imported)
    np.testing.assert_array_equal(answers(normalize(model), {"x": values})[0], expected)
