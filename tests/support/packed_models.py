"""One linear layer with quantized weights, in each form in which exporters write them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from triune.graph.packed import small_tensor

WIDTH, OUT, BLOCK = 64, 96, 16
FORMS = (
    *("int8 tensor", "uint8 tensor", "int8 axis", "uint8 axis", "int8 blocks", "uint8 blocks"),
    *("int4 tensor", "uint4 axis", "int4 blocks", "uint4 blocks"),
    *("cast and mul", "cast, sub and mul", "transposed", "gemm", "n bits 4", "n bits 4 with zeros", "n bits 8"),
    *("n bits 4 with float zeros", "n bits 4 with bias"),
)
_TYPES = {each: getattr(TensorProto, each.upper()) for each in ("int8", "uint8", "int4", "uint4")}
_LIMITS = {"int8": (-128, 128), "uint8": (0, 256), "int4": (-8, 8), "uint4": (0, 16)}


def packed_model(form: str) -> ModelProto:
    """A model that computes `x` (2, 3, WIDTH) times weights (WIDTH, OUT), which are quantized in one of FORMS."""
    rng = np.random.default_rng(11)
    nodes, constants = _nodes(form, rng)
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [6, WIDTH] if form == "gemm" else [2, 3, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [6, OUT] if form == "gemm" else [2, 3, OUT])],
        constants,
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def x_of(form: str) -> NDArray[np.float32]:
    """An input for the model of `packed_model`."""
    shape = (6, WIDTH) if form == "gemm" else (2, 3, WIDTH)
    return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


def _nodes(form: str, rng: np.random.Generator) -> tuple[list[Any], list[TensorProto]]:
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    if form.startswith("n bits"):
        return _n_bits(form, rng)
    if form.startswith("cast"):
        data = rng.integers(-128, 128, (WIDTH, OUT))
        constants = [small_tensor("q", TensorProto.INT8, data), _scales("s", rng, (1, OUT))]
        nodes = [helper.make_node("Cast", ["q"], ["f"], to=TensorProto.FLOAT)]
        if "sub" in form:
            constants.append(small_tensor("z", TensorProto.INT8, rng.integers(-9, 9, (1, OUT))))
            nodes += [
                helper.make_node("Cast", ["z"], ["g"], to=TensorProto.FLOAT),
                helper.make_node("Sub", ["f", "g"], ["d"]),
            ]
        nodes.append(helper.make_node("Mul", ["s", nodes[-1].output[0]], ["w"]))
        return [*nodes, product], constants
    if form in ("transposed", "gemm"):
        data = rng.integers(-128, 128, (OUT, WIDTH))
        constants = [small_tensor("q", TensorProto.INT8, data), _scales("s", rng, (OUT, WIDTH // BLOCK))]
        name = "w" if form == "gemm" else "t"
        unpack = helper.make_node("DequantizeLinear", ["q", "s"], [name], axis=1, block_size=BLOCK)
        if form == "gemm":
            return [unpack, helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)], constants
        return [unpack, helper.make_node("Transpose", ["t"], ["w"], perm=[1, 0]), product], constants
    kind, what = form.split()
    shape = {"tensor": (), "axis": (OUT,), "blocks": (WIDTH // BLOCK, OUT)}[what]
    attributes = {"tensor": {}, "axis": {"axis": 1}, "blocks": {"axis": 0, "block_size": BLOCK}}[what]
    constants = [
        small_tensor("q", _TYPES[kind], rng.integers(*_LIMITS[kind], (WIDTH, OUT))),
        _scales("s", rng, shape),
        small_tensor("z", _TYPES[kind], rng.integers(*_LIMITS[kind], shape)),
    ]
    return [helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], **attributes), product], constants


def _n_bits(form: str, rng: np.random.Generator) -> tuple[list[Any], list[TensorProto]]:
    bits, blocks = int(form.split()[2]), WIDTH // BLOCK
    data = rng.integers(0, 256, (OUT, blocks, BLOCK * bits // 8)).astype(np.uint8)
    constants = [numpy_helper.from_array(data, "q"), _scales("s", rng, (OUT * blocks,))]
    inputs = ["x", "q", "s"]
    if "float zeros" in form:
        constants.append(numpy_helper.from_array(rng.uniform(4, 12, (OUT, blocks)).astype(np.float32), "z"))
        inputs.append("z")
    elif "zeros" in form:
        constants.append(numpy_helper.from_array(rng.integers(0, 256, OUT * blocks // 2).astype(np.uint8), "z"))
        inputs.append("z")
    if "bias" in form:
        constants.append(_scales("b", rng, (OUT,)))
        inputs += ["", "", "b"]
    node = helper.make_node(
        "MatMulNBits", inputs, ["y"], domain="com.microsoft", K=WIDTH, N=OUT, bits=bits, block_size=BLOCK
    )
    return [node], constants


def _scales(name: str, rng: np.random.Generator, shape: tuple[int, ...]) -> TensorProto:
    return numpy_helper.from_array(rng.uniform(0.01, 0.02, shape).astype(np.float32), name)
