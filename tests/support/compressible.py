"""Small models with weights that are large enough to be compressed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Values = Mapping[str, NDArray[Any]]


def model_of(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[int | str]]],
    outputs: Sequence[str],
    weights: Values,
    *,
    opset: int = 21,
) -> ModelProto:
    """Make a model of these nodes. Its outputs are floats of any shape."""
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", opset)])


def matrix(rows: int, columns: int, seed: int = 0) -> NDArray[np.float32]:
    """A matrix of normally distributed random numbers."""
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


def perceptron(*, opset: int = 21, **weights: NDArray[np.float32]) -> ModelProto:
    """y = relu(x @ first) @ second, x [n, 64], y [n, 32]."""
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"], name="one"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("MatMul", ["b", "second"], ["y"], name="two"),
    ]
    own = {"first": matrix(64, 64), "second": matrix(64, 32, 1), **weights}
    return model_of(nodes, {"x": (TensorProto.FLOAT, ["n", 64])}, ["y"], own, opset=opset)


def run(model: ModelProto, inputs: Values) -> list[NDArray[Any]]:
    """Compute the outputs with ONNX Runtime in its default settings."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(inputs))
