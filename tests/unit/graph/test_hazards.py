"""Which models requests may end the process of."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from support.graphs import model_of
from triune.core.errors import InvalidArgumentError
from triune.graph.faults import FAULTS
from triune.graph.hazards import Hazards, hazards_of
from triune.graph.session import GraphSession

_WEIGHTS = f"float[1,4,2] w = {{{', '.join(['0.5'] * 8)}}}, float[1,4,1] r = {{{', '.join(['0.5'] * 4)}}}"
LSTM = "y, h, c = LSTM<hidden_size = 1>({}, w, r)"
MICROSOFT = ', "com.microsoft" : 1'


def lstm(before: str = "", given: str = "x", shape: str = "s,b,2") -> str:
    return f"g (float[{shape}] x) => (float[s,1,b,1] y) <{_WEIGHTS}> {{ {before} {LSTM.format(given)} }}"


@pytest.mark.parametrize(
    "text",
    [
        lstm(),
        lstm(shape="s,?,2"),
        lstm("z = Transpose<perm = [1, 0, 2]>(x)", "z"),
        lstm("e = Sigmoid(x) z = Mul(e, x)", "z"),
        lstm("i = Constant<value_ints = [0, 4, 2]>() z = Reshape(x, i)", "z"),
    ],
    ids=["inputs", "without a name", "transposed", "multiplied", "reshaped"],
)
def test_sizes_of_inputs_are_refused_where_they_are_0(text: str) -> None:
    found = hazards_of(model_of(text, opset=17))
    assert not found.apart
    assert {name: list(axes) for name, axes in found.sizes.items()} == {"x": [0] if "Reshape" in text else [0, 1]}
    with pytest.raises(InvalidArgumentError, match=r"'x' has the shape \[0, 3, 2\].*LSTM 'y': SIGABRT"):
        found.check({"x": np.ones((0, 3, 2), np.float32)})
    found.check({"x": np.ones((3, 1, 2), np.float32)})


@pytest.mark.parametrize(
    "text",
    [
        lstm("i = Constant<value_ints = [1]>() e = Constant<value_ints = [9]>() z = Slice(x, i, e, i)", "z"),
        lstm("i = Constant<value_ints = [0, -1, 2]>() z = Reshape(x, i)", "z"),
        lstm("z = Own(x)", "z"),
        """g (float[a,b,2] x, bool[a] k) => (float[n,1,b,1] y) <"""
        + _WEIGHTS
        + """> {
        z = Compress<axis = 0>(x, k) y, h, c = LSTM<hidden_size = 1>(z, w, r) }""",
        "g (float[1,n,1] x, int64 p, float[8] f, int64 l) => (float[1,m,5,2] y) { y = STFT(x, p, f, l) }",
        """g (float[a,1,5] x, float[c,1,k] w) => (float[a,c,m] y) {
        i = Constant<value_ints = [1]>() e = Constant<value_ints = [9]>() z = Slice(w, i, e) y = Conv(x, z) }""",
    ],
    ids=["sliced", "reshaped", "unknown operator", "compressed", "value", "kernel"],
)
def test_sizes_that_are_not_known_are_for_a_process_of_its_own(text: str) -> None:
    assert hazards_of(model_of(text, opset=17)).apart


@pytest.mark.parametrize(
    "text",
    [
        lstm(shape="3,1,2"),
        "g (float[a,1,5] x) => (float[a,1,3] y) <float[1,1,3] w = {1, 2, 3}> { y = Conv(x, w) }",
        "g (float[n] x) => (float[n] y) { y = Relu(x) }",
        "g (float[1,n,1] x, int64 p, float[8] f) => (float[1,m,5,2] y) <int64 l = {8}> { y = STFT(x, p, f, l) }",
    ],
    ids=["sizes are numbers", "constant kernel", "other operators", "constant length"],
)
def test_what_cannot_end_a_process_is_no_hazard(text: str) -> None:
    assert hazards_of(model_of(text, opset=17)) == Hazards()


def test_what_the_file_states_of_values_is_not_believed() -> None:
    text = lstm("i = Constant<value_ints = [1]>() e = Constant<value_ints = [9]>() z = Slice(x, i, e, i)", "z")
    model = model_of(text, opset=17)
    model.graph.value_info.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["s", "b", 2]))
    assert hazards_of(model).apart


def test_what_bodies_state_is_not_believed() -> None:
    model = model_of(
        f"""g (float[s,b,2] x, bool c) => (float[s,1,d,1] o) <{_WEIGHTS}> {{
        i = Constant<value_ints = [1]>() e = Constant<value_ints = [9]>() z = Slice(x, i, e, i)
        o = If(c) <then_branch = t () => (float[s,1,b,1] y) {{ v = Identity(z) {LSTM.format("v")} }},
                   else_branch = f () => (float[s,1,b,1] u) {{ u = Unsqueeze(z, i) }}> }}""",
        opset=17,
    )
    branch = model.graph.node[3].attribute[0].g
    branch.value_info.append(helper.make_tensor_value_info("v", TensorProto.FLOAT, ["s", "b", 2]))
    assert hazards_of(model).apart
    model.graph.node[2].CopyFrom(helper.make_node("Identity", ["x"], ["z"]))
    assert not hazards_of(model).apart


def test_shapes_pass_operators_of_onnx_runtime() -> None:
    text = """g (int64[b,s] ids, float[b,1,p,4] k0, float[b,1,p,4] v0, int32[b,1] l, int32 t) => (float[b,s,8] y) {
        h = Gather(e, ids)
        n = SimplifiedLayerNormalization(h, g)
        q = com.microsoft.MatMulNBits<K = 8, N = 16, bits = 4, block_size = 32>(n, wq, cq)
        a, k1, v1 = com.microsoft.GroupQueryAttention<num_heads = 2, kv_num_heads = 1>(q, , , k0, v0, l, t)
        o = com.microsoft.MatMulNBits<K = 8, N = 8, bits = 4, block_size = 32>(a, w, c)
        m, , , r = com.microsoft.SkipSimplifiedLayerNormalization(h, o, g)
        z = com.microsoft.MatMulNBits<K = 8, N = 16, bits = 4, block_size = 32>(m, wq, cq)
        a2, k2, v2 = com.microsoft.GroupQueryAttention<num_heads = 2, kv_num_heads = 1>(z, , , k0, v0, l, t)
        y = Identity(r) }"""
    model = model_of(text, opset=21, imports=MICROSOFT)
    for name, dims in {"e": [5, 8], "g": [8], "w": [8, 1, 16], "c": [8], "wq": [16, 1, 16], "cq": [16]}.items():
        kind = np.uint8 if name.startswith("w") else np.float32
        model.graph.initializer.append(numpy_helper.from_array(np.ones(dims, kind), name))
    found = hazards_of(model)
    assert not found.apart
    # Nothing is cached before the first call.
    assert {name: list(axes) for name, axes in found.sizes.items()} == {
        "ids": [0, 1],
        "k0": [0],
        "v0": [0],
        "l": [0],
    }
    assert found.why.startswith("SkipSimplifiedLayerNormalization 'm'")


def test_operators_that_nobody_tried_are_for_a_process_of_their_own() -> None:
    model = model_of("g (float[n] x) => (float[n] y) { y = com.microsoft.BeamSearch(x) }", imports=MICROSOFT)
    assert hazards_of(model).apart.startswith("BeamSearch 'y': nobody has tried")
    model = model_of("g (float[n] x) => (float[n] y) { y = com.microsoft.Gelu(x) }", imports=MICROSOFT)
    assert hazards_of(model) == Hazards()


def test_every_fault_is_told_by_its_signal_or_its_endlessness() -> None:
    assert all("SIG" in each.why or "no end" in each.why for each in FAULTS.values())


def test_sessions_of_programs_refuse_inputs_without_elements() -> None:
    session = GraphSession(model_of(lstm(), opset=17), "recurrent")
    with pytest.raises(InvalidArgumentError, match=r"'x' has the shape \[3, 0, 2\].*LSTM"):
        session.run({"x": np.ones((3, 0, 2), np.float32)}, {})
    outputs, _ = session.run({"x": np.ones((3, 1, 2), np.float32)}, {})
    assert outputs["y"].shape == (3, 1, 1, 1)
