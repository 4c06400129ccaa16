"""Models that are changed before ONNX Runtime loads them, with their weights still in their files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import GraphProto, TensorProto, helper, numpy_helper

from triune.core.units import Unit
from triune.runtimes.onnxruntime.runtime import OnnxRuntime

WEIGHT = np.random.default_rng(0).standard_normal((256, 256), np.float32)
X = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 256])
Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
COUNTS = [helper.make_tensor_value_info(name, TensorProto.INT64, []) for name in ("n", "q")]
QUOTIENT = helper.make_node("Div", ["n", "n"], ["q"])
"""ONNX Runtime is not given this division: the least number by -1 would end the process."""


def _by_initializer(weight: TensorProto) -> GraphProto:
    inputs = [X, COUNTS[0], helper.make_tensor_value_info("w", TensorProto.FLOAT, WEIGHT.shape)]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), QUOTIENT]
    return helper.make_graph(nodes, "g", inputs, [Y, COUNTS[1]], [weight])


def _by_constant(weight: TensorProto) -> GraphProto:
    constant = helper.make_node("Constant", [], ["w"], value=weight)
    nodes = [constant, helper.make_node("MatMul", ["x", "w"], ["y"]), QUOTIENT]
    return helper.make_graph(nodes, "g", [X, COUNTS[0]], [Y, COUNTS[1]])


def _in_branches(weight: TensorProto) -> GraphProto:
    branches = [
        helper.make_graph(
            [helper.make_node("Constant", [], ["w"], value=weight), helper.make_node("MatMul", ["x", "w"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
        )
        for name in ("t", "e")
    ]
    nodes = [
        helper.make_node("Equal", ["n", "n"], ["c"]),
        helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1]),
        QUOTIENT,
    ]
    return helper.make_graph(nodes, "g", [X, COUNTS[0]], [Y, COUNTS[1]])


@pytest.mark.parametrize("ir_version", [3, 4, 10])
@pytest.mark.parametrize("is_beside", [False, True], ids=["in the file", "beside it"])
@pytest.mark.parametrize("make", [_by_initializer, _by_constant, _in_branches], ids=lambda each: each.__name__)
def test_a_changed_model_reads_its_weights(
    make: Callable[[TensorProto], GraphProto], is_beside: bool, ir_version: int, tmp_path: Path
) -> None:
    graph = make(numpy_helper.from_array(WEIGHT, "w"))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=ir_version)
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=is_beside, location="data", size_threshold=0, convert_attribute=True)
    executable = OnnxRuntime().load(path, unit=Unit.CPU, num_threads=1, options={})
    x = np.ones((2, 256), np.float32)
    inputs = {spec.name: x if spec.name == "x" else np.array(-7) for spec in executable.signature.inputs}
    inputs.pop("w", None)
    found = executable.run(inputs, ["y", "q"])
    executable.close()
    np.testing.assert_allclose(found["y"], x @ WEIGHT, rtol=1e-4, atol=1e-4)
    assert found["q"] == 1
