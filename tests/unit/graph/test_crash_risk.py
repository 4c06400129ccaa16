"""Models for a process of their own."""

import pytest
from onnx import TensorProto, helper

from support.graphs import model_of
from triune.graph.crash_risk import fault_in
from triune.graph.faults import OPENVINO_FAULTS

_WEIGHTS = f"float[1,4,2] w = {{{', '.join(['0.5'] * 8)}}}, float[1,4,1] r = {{{', '.join(['0.5'] * 4)}}}"


def lstm(shape: str, given: str = "x", before: str = "") -> str:
    return f"g (float[{shape}] x) => (float[s,1,b,1] y) <{_WEIGHTS}> {{ {before} y, h, c = LSTM({given}, w, r) }}"


@pytest.mark.parametrize(
    "text",
    [
        lstm("s,b,2"),
        lstm("3,1,2", "z", "i = NonZero(x) j = Shape(i) k = Slice(j, j, j) z = Expand(x, k)"),
        "g (float[4] x, int64[2] i, float[2] u) => (float[4] y) { y = ScatterElements(x, i, u) }",
        "g (float[4] x, int64[2] p) => (float[n] y) { y = Pad(x, p) }",
        "g (int64 s, int64 e, int64 d) => (int64[n] y) { y = Range(s, e, d) }",
    ],
    ids=["free sizes", "computed sizes", "indices", "widths", "steps"],
)
def test_what_requests_decide(text: str) -> None:
    assert "SIG" in fault_in(model_of(text, opset=17), OPENVINO_FAULTS)


@pytest.mark.parametrize(
    "text",
    [
        lstm("3,1,2"),
        lstm("3,1,2", "z", "z = Relu(x)"),
        "g (float[4] x, float[2] u) => (float[4] y) <int64[2] i = {0, 3}> { y = ScatterElements(x, i, u) }",
        "g (int64 s, int64 e) => (int64[n] y) <int64 d = {1}> { y = Range(s, e, d) }",
        "g (float[n] x) => (float[n] y) { y = Relu(x) }",
    ],
    ids=["sizes", "computed sizes", "indices", "steps", "other operators"],
)
def test_what_the_model_decides(text: str) -> None:
    assert not fault_in(model_of(text, opset=17), OPENVINO_FAULTS)


def test_what_the_file_states_of_values_is_not_believed() -> None:
    model = model_of(lstm("s,b,2", "z", "z = Relu(x)"), opset=17)
    model.graph.value_info.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [3, 1, 2]))
    assert fault_in(model, OPENVINO_FAULTS)
