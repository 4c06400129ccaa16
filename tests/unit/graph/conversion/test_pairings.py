"""Several inputs with enumerated shapes."""

import re

import onnx.parser
import pytest
from onnx import ModelProto

from triune.core.errors import InvalidArgumentError
from triune.graph.conversion.options import ConversionOptions, Precision
from triune.graph.conversion.pairings import pairings_of
from triune.graph.conversion.prepare import prepare, silent
from triune.graph.conversion.shapes import InputShape
from triune.graph.weight_files import WeightFile


def _product(inner: str = "k") -> ModelProto:
    """A product of `a` of (m, k) and `b` of (`inner`, n), after a Reshape of `b` whose sizes are computed."""
    return onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": 17]>
        product (float[m, k] a, float[{inner}, n] b) => (float[m, n] y)
        {{ size = Shape(b)  same = Reshape(b, size)  y = MatMul(a, same) }}
    """)


def _prepare(model: ModelProto, a: InputShape, b: InputShape, precision: Precision) -> None:
    with WeightFile() as file:
        prepare(model, ConversionOptions(precision=precision, shapes={"a": a, "b": b}), None, silent, file)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
@pytest.mark.parametrize("inner", ["k", "l"])
def test_shapes_that_cannot_be_computed_together_are_named(precision: Precision, inner: str) -> None:
    with pytest.raises(InvalidArgumentError, match=re.escape("shape 2 of those given with --shape is a=4,3, b=2,7")):
        _prepare(_product(inner), InputShape(((1, 5), (4, 3))), InputShape(((5, 6), (2, 7))), precision)


def test_a_shape_that_the_model_cannot_take_is_named() -> None:
    with pytest.raises(InvalidArgumentError, match=r"2 .* a=4,3, and the model cannot take this shape: MatMul 'y': "):
        _prepare(_product(), InputShape(((1, 5), (4, 3))), InputShape(((5, 6),)), Precision.FP32)


def test_a_shape_that_is_computed_of_another_input_is_followed() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        as_a (float[m, k] a, float[n] b) => (float[m, k] y) { size = Shape(a)  r = Reshape(b, size)  y = Add(a, r) }
    """)
    _prepare(model, InputShape(((1, 4), (2, 4))), InputShape(((4,), (8,))), Precision.FP32)
    with pytest.raises(InvalidArgumentError, match=r"shape 2 .* a=2,4, b=12, .*: Reshape 'r'"):
        _prepare(model, InputShape(((1, 4), (2, 4))), InputShape(((4,), (12,))), Precision.FP32)


def test_shapes_that_go_together_are_taken() -> None:
    _prepare(_product(), InputShape(((1, 5), (4, 3))), InputShape(((5, 6), (3, 7))), Precision.FP16)
    _prepare(_product(), InputShape(((1, 5), (4, 5))), InputShape(((5, 6),)), Precision.FP16)


def test_shapes_belong_together_by_their_order() -> None:
    shapes = {"a": InputShape(((1, 5), (4, 3))), "b": InputShape(((5, 6), (3, 7))), "c": InputShape(((9,),))}
    assert pairings_of(shapes) == [{"a": (1, 5), "b": (5, 6)}, {"a": (4, 3), "b": (3, 7)}]
    assert not pairings_of({"c": InputShape(((9,),))})
    with pytest.raises(InvalidArgumentError, match=r"'a' 2, 'b' 3"):
        pairings_of({"a": InputShape(((1,), (2,))), "b": InputShape(((1,), (2,), (3,)))})
