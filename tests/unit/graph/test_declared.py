"""What a model declares of its shapes, and what counts where it is wrong."""

from typing import Any

import pytest
from onnx import ModelProto

from support.graphs import model_of
from triune.core.errors import UnsupportedError
from triune.graph.conversion.options import ConversionOptions
from triune.graph.conversion.prepare import prepare
from triune.graph.conversion.shapes import parse_shapes
from triune.graph.normalize import normalize
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
        prepared = prepare(model, ConversionOptions(shapes=parse_shapes(["x=3,4"])), None, print, file)
    assert shapes_of(prepared) == [[3, 4], [3, 4]]
