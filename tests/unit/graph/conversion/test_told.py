"""What messages say of inputs and constants that programs do not have."""

import onnx.parser
import pytest
from onnx import TensorProto, helper

from triune.core.errors import UnsupportedError
from triune.graph.conversion.constants import narrow_constant
from triune.graph.conversion.shapes import kind_of


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("string[2]", "STRING"),
        ("float8e5m2[2]", "FLOAT8E5M2"),
        ("seq(float[2])", "a sequence"),
        ("optional(float[2])", "an optional value"),
    ],
)
def test_the_kind_of_an_input(kind: str, told: str) -> None:
    graph = onnx.parser.parse_graph(f"g ({kind} x) => () {{ }}")
    assert kind_of(graph.input[0]) == told


def test_text_is_not_to_be_cast() -> None:
    text = helper.make_tensor("names", TensorProto.STRING, (1,), [b"a"])
    with pytest.raises(UnsupportedError, match=r"'names' is of .*STRING, which Core ML does not have; work on text"):
        narrow_constant(text, "Core ML")
