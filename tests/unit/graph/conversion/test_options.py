import numpy as np
import pytest
from onnx import TensorProto, helper

from triune.core.errors import InvalidArgumentError
from triune.graph.conversion.constants import typed_constants
from triune.graph.conversion.options import ConversionOptions, Precision
from triune.graph.conversion.shapes import InputShape, Range, parse_shape, parse_shapes


def test_shapes_are_fixed_ranges_or_several() -> None:
    assert parse_shape("x=1,3,224,224") == ("x", InputShape(((1, 3, 224, 224),)))
    assert parse_shape("x=1,1..512") == ("x", InputShape(((1, Range(1, 512)),)))
    name, shape = parse_shape("a=b=1,128|1,512")
    assert name == "a=b"
    assert shape.is_enumerated
    assert shape.choices == ((1, 128), (1, 512))
    assert parse_shape("x=4..4") == ("x", InputShape(((4,),)))


@pytest.mark.parametrize("text", ["x", "=1", "x=0", "x=5..2", "x=a", "x=1,2|3", "x=1|1..2", "x=1.5", "x=-1", "x=1,,2"])
def test_other_shapes_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError):
        parse_shape(text)


def test_an_input_has_one_shape() -> None:
    assert set(parse_shapes(["x=1", "y=2"])) == {"x", "y"}
    with pytest.raises(InvalidArgumentError, match="twice"):
        parse_shapes(["x=1", "x=2"])


def test_mixed_precision_and_kept_nodes_need_each_other() -> None:
    ConversionOptions(precision=Precision.MIXED, keep_fp32=frozenset(["Softmax"]))
    with pytest.raises(InvalidArgumentError, match="--precision mixed"):
        ConversionOptions(precision=Precision.FP16, keep_fp32=frozenset(["Softmax"]))
    with pytest.raises(InvalidArgumentError, match="--keep-fp32"):
        ConversionOptions(precision=Precision.MIXED)


def test_constants_take_the_type_and_shape_of_their_inputs() -> None:
    inputs = [
        helper.make_tensor_value_info("sr", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("scale", TensorProto.FLOAT, []),
    ]
    model = helper.make_model(helper.make_graph([], "g", inputs, []))
    typed = typed_constants(model, {"sr": np.array(16000), "scale": np.array(2)})
    assert typed["sr"].dtype == np.int64
    assert typed["sr"].shape == (1,)
    assert typed["scale"].dtype == np.float32
    with pytest.raises(InvalidArgumentError, match="rank 2"):
        typed_constants(model, {"sr": np.ones((2, 2))})
    with pytest.raises(InvalidArgumentError, match="'sr', 'scale'"):
        typed_constants(model, {"rate": np.array(1)})
