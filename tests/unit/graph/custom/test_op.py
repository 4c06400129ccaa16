"""Custom operators as users write them, and what is wrong with some."""

from typing import Any

import numpy as np
import pytest

from triune.core.errors import InvalidArgumentError
from triune.graph.custom import CustomOp, custom_op

BODY = '<domain: "my", opset_import: ["" : 20]> Double (x) => (y) { y = Add (x, x) }'


def test_a_function_is_an_operator_and_stays_callable() -> None:
    @custom_op("my::Double", body=BODY)
    def double(x: Any) -> Any:
        return x + x

    assert f"{double}" == "my::Double"
    assert double(2) == 4
    assert double.body is not None
    assert double.body.name == "Double"


def test_a_body_alone_is_an_operator() -> None:
    op = CustomOp.of_body(BODY)
    assert (op.domain, op.name, op.compute) == ("my", "Double", None)
    with pytest.raises(InvalidArgumentError, match="my::Double' has no numpy function"):
        op(1)


def test_onnxscript_gives_a_body() -> None:
    class Script:
        def to_function_proto(self) -> Any:
            return CustomOp.of_body(BODY).body

    assert CustomOp.of_body(Script()).name == "Double"


def test_the_numpy_function_cannot_write_to_its_inputs() -> None:
    @custom_op("my::Clear")
    def clear(x: Any) -> Any:
        x[:] = 0
        return x

    with pytest.raises(ValueError, match="read-only"):
        clear.run([np.ones(2)], {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "Double"}, "'Double' has no domain; name a custom operator as in 'my.domain::Double'"),
        ({"name": "ai.onnx::Add"}, "'ai.onnx::Add' is no name of a custom operator"),
        ({"name": "::Add"}, "'::Add' is no name of a custom operator"),
        ({"body": "nonsense"}, "the body of custom operator 'my::Double' is no function in ONNX's text: "),
        ({"body": 3}, "the body of custom operator 'my::Double' is int; give a function in ONNX's text"),
        ({"body": BODY.replace("Double", "Triple")}, "defines 'my::Triple'; both must be the same"),
        (
            {"body": '<domain: "my", opset_import: ["my" : 1]> Double (x) => (y) { y = my.F (x) }'},
            "imports no operator",
        ),
        ({"outputs": ["z"]}, "output type 'z' is no input; its inputs are x: name one of them"),
        ({"outputs": [object()]}, "neither the name of an input nor a dtype that ONNX has"),
    ],
)
def test_wrong_operators_are_refused(options: dict[str, Any], message: str) -> None:
    def function(x: Any) -> Any:
        return x

    with pytest.raises(InvalidArgumentError) as refused:
        custom_op(options.pop("name", "my::Double"), **options)(function)
    assert message in f"{refused.value}"


def test_a_function_of_any_keyword_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="takes any keyword \\('\\*\\*more'\\); write its attributes as"):
        custom_op("my::Any")(lambda x, **more: x)


def test_an_operator_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="has neither a numpy function nor a body"):
        CustomOp("my", "None", None)
