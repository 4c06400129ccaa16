"""What a model declares of its shapes, and what counts where it is wrong."""

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from support.graphs import answers, model_of
from triune.core.errors import UnsupportedError
from triune.graph.check import evaluate, sample_inputs
from triune.graph.conversion.options import ConversionOptions
from triune.graph.conversion.prepare import prepare
from triune.graph.conversion.shapes import apply_shapes, parse_shapes
from triune.graph.normalize import normalize
from triune.graph.values import Values
from triune.graph.weight_files import WeightFile


def shapes_of(model: ModelProto) -> list[Any]:
    values = [*model.graph.input, *model.graph.output]
    return [
        [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in value.type.tensor_type.shape.dim]
        for value in values
    ]


def test_sizes_below_zero_are_free_in_the_graphs_within_too() -> None:
    model = model_of(
        "agraph (float[N,4] x, bool c) => (float[N,4] y) { y = If (c) <then_branch = a () => (float[N,4] p) "
        "{ p = Relu (x) }, else_branch = b () => (float[N,4] q) { q = Abs (x) }> }"
    )
    inner = [attribute.g.output[0] for attribute in model.graph.node[0].attribute]
    for value in (model.graph.input[0], model.graph.output[0], *inner):
        value.type.tensor_type.shape.dim[0].dim_value = -1
    normal = normalize(model)
    assert [size for shape in shapes_of(normal) for size in shape if isinstance(size, int)] == [4, 4]
    assert all(not each.g.output[0].type.tensor_type.shape.dim[0].dim_value for each in normal.graph.node[0].attribute)


@pytest.mark.parametrize("opset", [11, 17, 21])
@pytest.mark.parametrize("declared", ["wrong rank", "wrong size", "no shape", "no element type", "no type"])
def test_outputs_have_the_shapes_that_are_inferred(declared: str, opset: int) -> None:
    model = model_of("agraph (float[N,4] x) => (float[B,4] y) { y = Relu (x) }", opset=opset)
    kind = model.graph.output[0].type
    match declared:
        case "wrong rank":
            kind.tensor_type.shape.dim.add(dim_value=1)
        case "wrong size":
            kind.tensor_type.shape.dim[1].dim_value = 5
        case "no shape":
            kind.tensor_type.ClearField("shape")
        case "no element type":
            kind.tensor_type.elem_type = 0
        case _:
            model.graph.output[0].ClearField("type")
    normal = normalize(model)
    assert normal.graph.output[0].type.tensor_type.elem_type == 1
    shape = shapes_of(normal)[1]
    assert shape[0] in ("N", "B")
    assert shape[1] == 4


def test_an_output_whose_type_nothing_tells_is_named_with_the_node_that_gives_it() -> None:
    model = model_of("agraph (float[2] x) => (float[2] y) { y = my.ops.Odd (x) }", imports=', "my.ops" : 1')
    model.graph.output[0].ClearField("type")
    with WeightFile() as file, pytest.raises(UnsupportedError, match="my.ops:Odd 'y'"):
        prepare(model, ConversionOptions(), None, print, file)


def test_a_size_of_zero_can_be_given() -> None:
    model = model_of("agraph (float[2,4] x) => (float[2,4] y) { y = Relu (x) }")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 0
    with WeightFile() as file:
        prepared = prepare(model, ConversionOptions(shapes=parse_shapes(["x=3,4"])), None, print, file).model
    assert shapes_of(prepared) == [[3, 4], [3, 4]]


@pytest.mark.parametrize("opset", [11, 17, 28])
@pytest.mark.parametrize(
    "declared",
    [
        {},
        {"t": [1, 128, 8]},
        {"t": ["b", 128, 8], "f": [128, 8]},
        {"t": [1, 128, 8], "f": [128, 8], "g": [128, 8], "z": [1, 128, 8]},
        {"t": [8, 8]},
        {"f": [1, 128, 9]},
    ],
)
def test_shapes_declared_for_other_sizes_than_those_given_do_not_count(
    declared: dict[str, list[str | int]], opset: int
) -> None:
    text = """
    agraph (float[b,s,8] x, float[8,8] w) => (float[b,s,8] y) <int64[2] m = {-1, 8}> {
      t = MatMul (x, w)  u = Relu (t)  k = Shape (u)  f = Reshape (u, m)  g = Tanh (f)  z = Reshape (g, k)
      y = Add (z, x) }"""
    model = model_of(text, opset=opset)
    right = answers(model, inputs := {**sample_inputs(model), "x": np.ones((2, 5, 8), np.float32)})
    for name, shape in declared.items():
        model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    apply_shapes(model, parse_shapes(["x=2,5,8"]))
    normal = normalize(model)
    np.testing.assert_allclose(answers(normal, inputs)[0], right[0], rtol=1e-5)
    values = Values(normal.graph)
    known = {name: values.shape(name) for name in ("t", "f", "g", "y")}
    assert known == {"t": (2, 5, 8), "f": (10, 8), "g": (10, 8), "y": (2, 5, 8)}


@pytest.mark.parametrize(("given", "shape"), [("x=3,4", (3, 4)), ("x=1,4", (1, 4))])
def test_declared_shapes_count_where_nothing_is_inferred_unless_others_are_wrong(
    given: str, shape: tuple[int, ...]
) -> None:
    text = "agraph (float[N,4] x) => (float[N,4] y) { t = Relu (x)  u = my.ops.Odd (t)  y = Neg (u) }"
    model = model_of(text, imports=', "my.ops" : 1')
    for name in ("t", "u"):
        model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [3, 4]))
    apply_shapes(model, parse_shapes([given]))
    values = Values(normalize(model).graph)
    assert values.shape("t") == shape
    assert values.shape("u") == ((3, 4) if shape == (3, 4) else (None, None))


@pytest.mark.parametrize("lost", ["outputs", "shapes of states", "both"])
@pytest.mark.parametrize("opset", [11, 16, 21])
def test_bodies_without_types_convert(opset: int, lost: str) -> None:
    text = """
    agraph (float[2,3] x, bool q) => (float[2,3] y, float[3,2,3] z) <int64 n = {3}, bool t = {1}> {
      y, z = Loop (n, t, x) <body = l (int64 i, bool c, float[2,3] v) => (bool o, float[2,3] w, float[2,3] s) {
        o = Identity (c)  s = Neg (v)
        w = If (q) <then_branch = g () => (float[2,3] a) { a = Softmax <axis = 1> (v) },
                    else_branch = h () => (float[2,3] b) { k = Cast <to = 1> (i)  b = Sub (v, k) }> }> }"""
    model = model_of(text, opset=opset)
    right = answers(model, inputs := sample_inputs(model))
    body = model.graph.node[0].attribute[0].g
    graphs = [body, *(attribute.g for attribute in body.node[2].attribute)]
    if lost != "shapes of states":
        for graph in graphs:
            for value in graph.output:
                value.ClearField("type")
    if lost != "outputs":
        body.input[2].type.tensor_type.ClearField("shape")
    for actual, expected in zip(answers(normalize(model), inputs), right, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_a_state_declared_for_other_sizes_is_not_believed() -> None:
    text = """
    agraph (float[N,3] x) => (float[N,3] y) <int64 n = {3}, bool t = {1}> {
      y = Loop (n, t, x) <body = l (int64 i, bool c, float[1,3] v) => (bool o, float[1,3] w) {
        o = Identity (c)  s = Shape (v)  k = Constant <value_ints = [-1]> ()  f = Reshape (v, k)  g = Tanh (f)
        w = Reshape (g, s) }> }"""
    model = model_of(text)
    apply_shapes(model, parse_shapes(["x=2,3"]))
    x = np.ones((2, 3), np.float32)
    np.testing.assert_allclose(evaluate(normalize(model), {"x": x})[0], np.tanh(np.tanh(np.tanh(x))), rtol=1e-6)
