"""Small ONNX models, built where they are needed, and the implementations that must all agree on them."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from triune.core.datatypes import Array, DataType

ELEMENT_TYPES = {
    DataType.BOOL: TensorProto.BOOL,
    DataType.UINT8: TensorProto.UINT8,
    DataType.UINT16: TensorProto.UINT16,
    DataType.UINT32: TensorProto.UINT32,
    DataType.UINT64: TensorProto.UINT64,
    DataType.INT8: TensorProto.INT8,
    DataType.INT16: TensorProto.INT16,
    DataType.INT32: TensorProto.INT32,
    DataType.INT64: TensorProto.INT64,
    DataType.FP16: TensorProto.FLOAT16,
    DataType.FP32: TensorProto.FLOAT,
    DataType.FP64: TensorProto.DOUBLE,
    DataType.BF16: TensorProto.BFLOAT16,
    DataType.BYTES: TensorProto.STRING,
}

Shape = Sequence[int | str | None]


def tensor(name: str, shape: Shape | None, datatype: DataType = DataType.FP32) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, ELEMENT_TYPES[datatype], shape)


def model(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    initializers: Mapping[str, Array] | None = None,
    *,
    opset: int = 21,
    ir_version: int = 10,
) -> ModelProto:
    weights = [numpy_helper.from_array(array, name) for name, array in (initializers or {}).items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def identity(datatype: DataType = DataType.FP32, shape: Shape = ("n",)) -> ModelProto:
    return model([node("Identity", "x", "y")], [tensor("x", shape, datatype)], [tensor("y", shape, datatype)])


def add_sub(datatype: DataType = DataType.INT32, shape: Shape = ("batch", 16)) -> ModelProto:
    """Triton's `simple` example: OUTPUT0 is the sum, OUTPUT1 the difference."""
    return model(
        [node("Add", "INPUT0 INPUT1", "OUTPUT0"), node("Sub", "INPUT0 INPUT1", "OUTPUT1")],
        [tensor("INPUT0", shape, datatype), tensor("INPUT1", shape, datatype)],
        [tensor("OUTPUT0", shape, datatype), tensor("OUTPUT1", shape, datatype)],
    )


def matmul() -> ModelProto:
    return model(
        [node("MatMul", "a b", "c")],
        [tensor("a", ("rows", "inner")), tensor("b", ("inner", "columns"))],
        [tensor("c", ("rows", "columns"))],
    )


def dense(size: int, *, num_layers: int = 1) -> ModelProto:
    """Layers of a square matrix each: work for as long as a test likes."""
    names = [f"h{index}" for index in range(num_layers)] + ["y"]
    names[0] = "x"
    weights = np.full((size, size), 1 / size, np.float32)
    return model(
        [node("MatMul", f"{source} w", target) for source, target in itertools.pairwise(names)],
        [tensor("x", ("n", size))],
        [tensor("y", ("n", size))],
        {"w": weights},
    )


def save(model: ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def sample(datatype: DataType, shape: Sequence[int] = (5,)) -> Array:
    """Values at the edges of what every runtime must carry exactly, cut or repeated to `shape`."""
    dtype = datatype.dtype
    if datatype is DataType.BYTES:
        values: Any = ["", "é", "a\0b", "nul\0", "日本"]
        flat = np.array([value.encode() for value in values], np.object_)
    elif datatype is DataType.BOOL:
        flat = np.array([True, False, False, True, True])
    elif np.issubdtype(dtype, np.integer):
        # OpenVINO computes in 32 bits: the wider types get a test of their own.
        low, high = max(np.iinfo(dtype).min, -(2**31)), min(np.iinfo(dtype).max, 2**31 - 1)
        flat = np.array([low, high, 0, 1, 7], dtype)
    else:
        # Exact in bf16 as well, the coarsest of the types and of the units.
        flat = np.array([0.0, -1.5, 240.0, 0.0078125, -65280.0 if datatype is not DataType.FP16 else -1024.0], dtype)
    size = int(np.prod(shape))
    array = np.empty(tuple(shape), dtype)
    array.reshape(-1)[:] = np.resize(flat, size)
    return array
