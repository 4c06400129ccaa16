"""Sizes and numbers of 0 are refused before they end ONNX Runtime's process; all else is as it was."""

import numpy as np
import onnx
import onnx.checker
import pytest
from onnx import ModelProto, TensorProto, helper

from support.contrib import CASES
from support.contrib.case import Case
from support.graphs import answers, model_of, ops_of
from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError
from triune.graph.faults import FAULTS, OPENVINO_FAULTS
from triune.graph.guard import guard
from triune.graph.session import GraphSession

_WEIGHTS = f"float[1,4,2] w = {{{', '.join(['0.5'] * 8)}}}, float[1,4,1] r = {{{', '.join(['0.5'] * 4)}}}"
LSTM = "y, h, c = LSTM<hidden_size = 1>({}, w, r)"
SLICED = "i = Constant<value_ints = [1]>() e = Constant<value_ints = [9]>() z = Slice(x, i, e, i)"
MICROSOFT = ', "com.microsoft" : 1'


def rows(*shape: int) -> Array:
    return np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)


# What is asked for, what is answered, and what would end the process.
MODELS: dict[str, tuple[str, dict[str, Array], dict[str, Array]]] = {
    "LSTM": (
        f"g (float[s,b,2] x) => (float[s,1,b,1] y) <{_WEIGHTS}> {{ {LSTM.format('x')} }}",
        {"x": rows(3, 2, 2)},
        {"x": rows(3, 0, 2)},
    ),
    "LSTM of what is cut off": (
        f"g (float[s,b,2] x) => (float[s,1,d,1] y) <{_WEIGHTS}> {{ {SLICED} {LSTM.format('z')} }}",
        {"x": rows(3, 2, 2)},
        {"x": rows(3, 1, 2)},
    ),
    "LSTM in a branch": (
        f"""g (float[s,b,2] x, bool q) => (float[s,1,b,1] o) <{_WEIGHTS}> {{
        o = If(q) <then_branch = t () => (float[s,1,b,1] y) {{ {LSTM.format("x")} }},
                   else_branch = f () => (float[s,1,b,1] u) {{
                       i = Constant<value_ints = [1]>() a = Unsqueeze(x, i) u = ReduceSum(a) }}> }}""",
        {"x": rows(3, 2, 2), "q": np.array(True)},
        {"x": rows(3, 0, 2), "q": np.array(True)},
    ),
    "GRU": (
        f"""g (float[s,b,2] x) => (float[s,1,b,1] y) <
        float[1,3,2] w = {{{", ".join(["0.5"] * 6)}}}, float[1,3,1] r = {{{", ".join(["0.5"] * 3)}}}> {{
        y, h = GRU<hidden_size = 1>(x, w, r) }}""",
        {"x": rows(3, 2, 2)},
        {"x": rows(0, 2, 2)},
    ),
    "STFT": (
        "g (float[1,n,1] x, int64 l) => (float[1,m,k,2] y) <int64 p = {4}> { y = STFT(x, p, , l) }",
        {"x": rows(1, 16, 1), "l": np.array(8)},
        {"x": rows(1, 16, 1), "l": np.array(0)},
    ),
    "STFT without a length": (
        "g (float[1,n,1] x, float[k] w) => (float[1,m,f,2] y) <int64 p = {4}> { y = STFT(x, p, w) }",
        {"x": rows(1, 16, 1), "w": rows(8)},
        {"x": rows(1, 16, 1), "w": rows(0)},
    ),
    "Unique": (
        "g (float[n,m] x) => (float[k,m] y) { y = Unique<axis = 0>(x) }",
        {"x": rows(3, 2)},
        {"x": rows(3, 0)},
    ),
    "Conv": (
        "g (float[1,1,n] x, float[1,1,k] w) => (float[1,1,m] y) { y = Conv(x, w) }",
        {"x": rows(1, 1, 5), "w": rows(1, 1, 2)},
        {"x": rows(1, 1, 5), "w": rows(1, 1, 0)},
    ),
    "ConvTranspose": (
        "g (float[1,1,a,b,c] x, float[1,1,k,k,k] w) => (float[1,1,d,e,f] y) { y = ConvTranspose(x, w) }",
        {"x": rows(1, 1, 2, 3, 4), "w": rows(1, 1, 2, 2, 2)},
        {"x": rows(1, 1, 2, 0, 4), "w": rows(1, 1, 2, 2, 2)},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_ends_the_process_is_refused(name: str) -> None:
    text, sound, fatal = MODELS[name]
    model = model_of(text, opset=17)
    expected = answers(model, sound)
    session = GraphSession(model, name)
    outputs, _ = session.run(sound, {})
    for array, right in zip(outputs.values(), expected, strict=True):
        np.testing.assert_array_equal(array, right)
    with pytest.raises(InvalidArgumentError, match=rf"{name.split()[0]} '.*' takes no (size of )?0.*division by zero"):
        session.run(fatal, {})
    outputs, _ = session.run(sound, {})
    np.testing.assert_array_equal(next(iter(outputs.values())), expected[0])


def _fatal_of(case: Case) -> dict[str, Array]:
    """The inputs of a case, one of whose sizes is 0."""
    fault = FAULTS["com.microsoft", case.op_type]
    (place, axes), *_ = fault.sizes.items()
    names = list(case.inputs)
    feeds = case.feeds()
    given = np.asarray(feeds[names[place]])
    axis = (1 if case.op_type == "DynamicQuantizeLSTM" else 0) if axes is None else axes[0] % given.ndim
    return {**feeds, names[place]: np.delete(given, slice(None), axis)}


@pytest.mark.parametrize(
    "op_type", ["DynamicQuantizeLSTM", "GroupQueryAttention", "QAttention", "RotaryEmbedding", "SkipLayerNormalization"]
)
def test_operators_of_onnx_runtime(op_type: str) -> None:
    case = next(each for each in CASES if each.op_type == op_type and not each.reason)
    model = case.model({})
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()
    session = GraphSession(model, op_type)
    outputs, _ = session.run(case.feeds(), {})
    for name, right in case.expected().items():
        np.testing.assert_allclose(outputs[name], right, atol=0.01)
    with pytest.raises(InvalidArgumentError, match=f"{op_type} '.*' takes no size of 0"):
        session.run(_fatal_of(case), {})


@pytest.mark.parametrize(
    "text",
    [
        "g (float[a,1,5] x) => (float[a,1,3] y) <float[1,1,3] w = {1, 2, 3}> { y = Conv(x, w) }",
        "g (float[a,1,5] x) => (float[a,1,7] y) <float[1,1,3] w = {1, 2, 3}> { y = ConvTranspose(x, w) }",
        "g (float[n] x) => (float[k] y) { y = Unique(x) }",
        "g (float[n] x) => (float[n] y) { y = Relu(x) }",
    ],
    ids=["constant kernel", "one dimension", "no axis", "other operators"],
)
def test_what_cannot_end_it_stays_as_it_is(text: str) -> None:
    model = model_of(text, opset=17)
    before = model.SerializeToString()
    found = guard(model)
    assert (found.is_changed, found.crash_risk) == (False, "")
    assert model.SerializeToString() == before


def test_functions_are_checked() -> None:
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Rows", ["x"], ["y"], domain="own")],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "m"])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["k", "m"])],
        ),
        functions=[
            helper.make_function(
                "own",
                "Rows",
                ["a"],
                ["q"],
                [helper.make_node("Unique", ["a"], ["q"], axis=0)],
                [helper.make_opsetid("", 17)],
            )
        ],
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("own", 1)],
        ir_version=10,
    )
    session = GraphSession(model, "function")
    outputs, _ = session.run({"x": rows(3, 2)}, {})
    assert outputs["y"].shape == (3, 2)
    with pytest.raises(InvalidArgumentError, match="Unique 'q' takes no size of 0"):
        session.run({"x": rows(3, 0)}, {})


@pytest.mark.parametrize(
    ("node", "why"),
    [
        ("y = com.microsoft.BeamSearch(x)", "BeamSearch 'y': it was not tested"),
        ("y = com.microsoft.Inverse(x)", "Inverse 'y': SIGSEGV where"),
        ("b = Constant<value_ints = [0]>() r = Identity(x) y = RoiAlign(x, r, b)", "RoiAlign 'y': SIGSEGV by"),
    ],
)
def test_what_cannot_be_checked_is_told(node: str, why: str) -> None:
    found = guard(model_of(f"g (float[n] x) => (float[n] y) {{ {node} }}", imports=MICROSOFT))
    assert found.crash_risk.startswith(why)


def test_what_was_tried_is_no_fault() -> None:
    found = guard(model_of("g (float[n] x) => (float[n] y) { y = com.microsoft.Gelu(x) }", imports=MICROSOFT))
    assert (found.is_changed, found.crash_risk) == (False, "")


def test_checked_models_are_valid() -> None:
    for text, _, _ in MODELS.values():
        model: ModelProto = model_of(text, opset=17)
        assert guard(model).is_changed
        onnx.checker.check_model(model)
    assert ops_of(model)[:4] == ["Shape", "Div", "Mul", "Reshape"]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_may_be_opened_again(name: str) -> None:
    """It is opened with and without optimizations to be compared: it had nodes of equal names the second time."""
    text, sound, fatal = MODELS[name]
    model = model_of(text, opset=17)
    expected = answers(model, sound)
    for optimizes in (True, False, True):
        session = GraphSession(model, name, optimizes=optimizes)
        outputs, _ = session.run(sound, {})
        for array, right in zip(outputs.values(), expected, strict=True):
            np.testing.assert_array_equal(array, right)
        with pytest.raises(InvalidArgumentError, match=r"takes no (size of )?0.*division by zero"):
            session.run(fatal, {})


def test_every_fault_is_told_by_its_signal_or_its_endlessness() -> None:
    for fault in (*FAULTS.values(), *OPENVINO_FAULTS.values()):
        assert "SIG" in fault.why or "no end" in fault.why


KERNEL = "float s = {0.5}, int8[2,1,1,1] q = {2, -3}, uint8[2,1,1,1] i = {0, 1}, float[2] table = {0.5, 2.0}"


@pytest.mark.parametrize(
    "weight",
    [
        "w = DequantizeLinear(q, s)",
        "t = DequantizeLinear(q, s) w = Transpose<perm = [0, 1, 3, 2]>(t)",
        "p = Cast<to = 6>(i) w = Gather<axis = 0>(table, p)",
    ],
)
def test_weights_of_fewer_bits_are_read_without_a_check(weight: str) -> None:
    model = model_of(f"g (float[1,1,2,2] x) => (float[1,2,2,2] y) <{KERNEL}> {{ {weight} y = Conv(x, w) }}", opset=21)
    assert not guard(model).is_changed


def test_weights_of_a_request_are_checked_though_they_are_of_fewer_bits() -> None:
    text = "g (float[1,1,2,2] x, int8[m,1,1,1] q) => (float[1,m,2,2] y) <float s = {0.5}>"
    model = model_of(f"{text} {{ w = DequantizeLinear(q, s) y = Conv(x, w) }}", opset=21)
    assert guard(model).is_changed
    assert "Div" in ops_of(model)


def test_empty_weights_of_fewer_bits_are_checked() -> None:
    text = "g (float[1,1,2,2] x) => (float[1,2,3,2] y) <float s = {0.5}, int8[2,1,0,1] q = {}>"
    model = model_of(f"{text} {{ w = DequantizeLinear(q, s) y = Conv(x, w) }}", opset=21)
    assert guard(model).is_changed
