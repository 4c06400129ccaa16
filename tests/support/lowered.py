"""Small ONNX graphs converted to Core ML, and computed by both executors and by ONNX Runtime."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, TensorProto, helper, numpy_helper

from triune.coreml.interpreter import Interpreter
from triune.coreml.lowering import LowerOptions, lower
from triune.coreml.onnx_executor import OnnxExecutor
from triune.coreml.package import read_package

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
Value = tuple[str, int, Sequence[int | str]]


def model_of(nodes: Sequence[Any], inputs: Sequence[Value], outputs: Sequence[Value], **constants: Any) -> ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def plain_answers(model: ModelProto, feeds: Mapping[str, Any]) -> list[Any]:
    """Compute a model with ONNX Runtime without fusion, since its fused products with quantized weights round their
    operand to 8 bits.
    """
    options: Any = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session: Any = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feeds))


def check(
    model: ModelProto, feeds: Mapping[str, Any], folder: Path, options: LowerOptions | None = None, atol: float = 1e-5
) -> dict[str, Any]:
    """Convert a model, compute it with both executors and with ONNX Runtime, and compare. Returns the outputs."""
    lowered = lower(model, folder / "m.mlpackage", options)
    expected = plain_answers(model, feeds)
    given = {}
    for name, array in feeds.items():
        narrow = array.astype(np.int32) if array.dtype.kind in "biu" else array
        given[lowered.inputs[name]] = narrow.reshape(1) if narrow.ndim == 0 else narrow
    results: dict[str, Any] = {}
    for executor in (OnnxExecutor, Interpreter):
        results, _ = executor(read_package(lowered.path)).run(given, {})
        for value, right in zip(model.graph.output, expected, strict=True):
            actual = results[lowered.outputs[value.name]]
            assert actual.shape == (right.shape or (1,))
            np.testing.assert_allclose(actual.reshape(right.shape), right, atol=atol, rtol=1e-4)
    return results


def save_renamed(folder: Path) -> Path:
    """Save a package that computes `out/y:0` = `in/x:0` + `plain`, of shape (1, 4). Core ML does not allow such names,
    so they are renamed.
    """
    nodes = [helper.make_node("Add", ["in/x:0", "plain"], ["out/y:0"])]
    inputs = [(name, FLOAT, (1, 4)) for name in ("in/x:0", "plain")]
    return lower(model_of(nodes, inputs, [("out/y:0", FLOAT, (1, 4))]), folder / "renamed.mlpackage").path
