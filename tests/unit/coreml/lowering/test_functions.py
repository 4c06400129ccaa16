"""Packages of several functions, and with states."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import triune
from support import graphs
from support.lowered import FLOAT, INT64, model_of
from triune import coreml
from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from triune.coreml.lowering import LowerOptions, Source, Target, lower, lower_functions
from triune.graph.conversion.options import Precision
from triune.graph.verify import Verdict

FLOAT16 = TensorProto.FLOAT16


def counter(kind: int = FLOAT) -> Any:
    """A sum of all inputs so far, times the newest one."""
    nodes = [helper.make_node("Add", ["past", "x"], ["next"]), helper.make_node("Mul", ["next", "x"], ["y"])]
    return model_of(nodes, [("past", kind, [1, 4]), ("x", kind, [1, 4])], [("next", kind, [1, 4]), ("y", kind, [1, 4])])


def linear(weight: Any, rows: int = 3) -> Any:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return model_of([node], [("x", FLOAT, [rows, 128])], [("y", FLOAT, [rows, 128])], w=weight)


@pytest.mark.parametrize("executor", ["onnxruntime", "reference"])
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
@pytest.mark.parametrize("kind", [FLOAT, FLOAT16])
def test_states_are_kept_between_calls(kind: int, precision: Precision, executor: Any, tmp_path: Path) -> None:
    options = LowerOptions(states={"past": "next"}, precision=precision)
    lowered = lower(counter(kind), tmp_path / "m.mlpackage", options)
    assert (lowered.inputs, lowered.outputs, lowered.states) == ({"x": "x"}, {"y": "y"}, {"past": "past"})
    model = coreml.load(lowered.path, executor=executor)
    state, x = model.make_state(), np.full((1, 4), 2, np.float32 if kind == FLOAT else np.float16)
    for right in (2, 4, 6):
        np.testing.assert_array_equal(model.predict({"x": x}, state)["y"], np.full((1, 4), 2 * right))
        np.testing.assert_array_equal(state.read("past"), np.full((1, 4), right, np.float16))
    is_rounded = kind == FLOAT and precision is Precision.FP32
    assert any("computes in fp32: it rounds past" in note for note in lowered.notes) == is_rounded


@pytest.mark.parametrize("ending", ["mlpackage", "aimodel"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(
    "text",
    [
        # A state that is one number.
        """g (float[2, 3] x, float past) => (float[2, 3] y, float next) {
            m = ReduceMax <keepdims = 0> (x) next = Max (past, m) y = Mul (x, past) }""",
        # A state whose next value has a size that is computed: the last columns of what came.
        """g (float[2, n] x, float[2, 6] past) => (float[2, 1] y, float[2, 6] next) <int64[1] one = {1},
          int64[1] all = {1000}> {
            c = Concat <axis = 1> (past, x) s = Shape (x) n = Gather (s, one) next = Slice (c, n, all, one)
            y = ReduceMax (next, one) }""",
    ],
)
def test_states_of_one_number_and_of_computed_sizes(text: str, precision: Any, ending: str, tmp_path: Path) -> None:
    source, target = tmp_path / "m.onnx", tmp_path / f"m.{ending}"
    onnx.save(graphs.model_of(text, opset=18), source)
    shapes = {"x": "2,1..4"} if "[2, n]" in text else {}
    done = triune.convert(source, target, precision=precision, shapes=shapes, states={"past": "next"}, verify=True)
    assert done.verdict is Verdict.RIGHT


def test_numbers_near_others_are_rounded_as_states_are(tmp_path: Path) -> None:
    text = """g (float[4] past, float[4] x) => (float[4] next, float[4] y) { next = Identity (x)
        y = Sub (past, x) }"""
    onnx.save(graphs.model_of(text, opset=18), tmp_path / "m.onnx")
    states = {"past": "next"}
    done = triune.convert(tmp_path / "m.onnx", tmp_path / "m.mlpackage", precision="fp16", states=states, verify=True)
    assert done.verdict is Verdict.RIGHT
    assert "answers wrongly" not in " ".join(done.notes)


@pytest.mark.parametrize(
    ("nodes", "accumulates"),
    [
        ("q = Add (x, p)", True),
        ("a = Mul (p, k) b = Mul (x, s) q = Add (a, b)", True),
        ("d = Sub (x, p) m = Mul (d, s) q = Add (p, m)", True),
        ("a = Mul (p, k) q = Tanh (x)", False),
        ("q = Mul (p, k)", False),
        ("s1 = Sigmoid (x) a = Mul (p, s1) t = Tanh (x) q = Add (a, t)", False),
    ],
)
def test_states_that_add_to_themselves_are_named(nodes: str, accumulates: bool, tmp_path: Path) -> None:
    text = f"""g (float[4] x, float[4] p) => (float[4] y, float[4] q) <float k = {{0.999}}, float s = {{0.001}}> {{
        {nodes} y = Mul (x, q) }}"""
    options = LowerOptions(states={"p": "q"}, precision=Precision.FP16)
    lowered = lower(graphs.model_of(text), tmp_path / "m.mlpackage", options)
    assert any("each call adds to p:" in note for note in lowered.notes) == accumulates


def test_functions_share_their_weights(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((128, 128)).astype(np.float32)
    one = lower(linear(weight), tmp_path / "one.mlpackage")
    sources = {"prefill": Source(linear(weight), LowerOptions()), "decode": Source(linear(weight, 1), LowerOptions())}
    both = lower_functions(sources, tmp_path / "both.mlpackage")
    assert list(both) == ["prefill", "decode"]
    assert size_of_weights(both["decode"].path) == size_of_weights(one.path)
    x = np.ones((3, 128), np.float32)
    for function, rows in (("prefill", 3), ("decode", 1)):
        found = coreml.load(both[function].path, function=function).predict({"x": x[:rows]})["y"]
        np.testing.assert_allclose(found, x[:rows] @ weight, rtol=1e-4, atol=1e-4)
    assert coreml.load(both["decode"].path).function == "prefill"
    with pytest.raises(NotFoundError, match="'main'"):
        coreml.load(both["decode"].path, function="main")


def test_weights_of_one_name_that_differ_by_little_are_not_shared(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((128, 128)).astype(np.float32)
    other = weight.copy()
    other[5, 7] = np.nextafter(other[5, 7], np.float32(9))
    both = lower_functions(
        {"a": Source(linear(weight), LowerOptions()), "b": Source(linear(other), LowerOptions())},
        tmp_path / "m.mlpackage",
    )
    x = np.eye(128, dtype=np.float32)[:6]
    for function, right in (("a", weight), ("b", other)):
        found = coreml.load(both["a"].path, function=function).predict({"x": x[3:]})["y"]
        np.testing.assert_array_equal(found, right[3:6])


def size_of_weights(path: Path) -> int:
    return sum(each.stat().st_size for each in path.rglob("weight.bin"))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_functions_with_states_are_compared(precision: Any, tmp_path: Path) -> None:
    source = tmp_path / "counter.onnx"
    onnx.save(counter(), source)
    done = triune.convert(
        *(source, tmp_path / "m.mlpackage"),
        precision=precision,
        function="prefill",
        functions={"decode": source},
        states={"past": "next"},
        verify=True,
    )
    assert done.verdict is Verdict.RIGHT
    assert [each.name for each in done.outputs] == ["prefill: next", "prefill: y", "decode: next", "decode: y"]


@pytest.mark.parametrize(
    ("states", "kind", "told"),
    [
        ({"pas": "next"}, InvalidArgumentError, "'pas'.*'past', 'x', 'n'"),
        ({"past": "nex"}, InvalidArgumentError, "'nex'.*'next', 'y', 'm'"),
        ({"past": "next", "x": "next"}, InvalidArgumentError, "two states have the same next value"),
        ({"n": "m"}, UnsupportedError, "state 'n' is INT32; Core ML's states are FLOAT16"),
    ],
)
def test_states_that_cannot_be(states: Any, kind: Any, told: str, tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["past", "x"], ["next"]), helper.make_node("Neg", ["x"], ["y"])]
    nodes.append(helper.make_node("Neg", ["n"], ["m"]))
    inputs = [("past", FLOAT, [1, 4]), ("x", FLOAT, [1, 4]), ("n", INT64, [2])]
    model = model_of(nodes, inputs, [("next", FLOAT, [1, 4]), ("y", FLOAT, [1, 4]), ("m", INT64, [2])])
    with pytest.raises(kind, match=told):
        lower(model, tmp_path / "m.mlpackage", LowerOptions(states=states))


def test_what_older_systems_lack(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="states need iOS18, and the package is to run on iOS17"):
        LowerOptions(states={"past": "next"}, target=Target.IOS17)
    old = Source(counter(), LowerOptions(target=Target.IOS17))
    with pytest.raises(InvalidArgumentError, match="needs iOS18, and it is to run on iOS17"):
        lower_functions({"a": old, "b": old}, tmp_path / "m.mlpackage")


def test_tensors_of_one_name_in_the_package_are_the_same_ones(tmp_path: Path) -> None:
    def named(name: str) -> Any:
        return model_of([helper.make_node("Neg", [name], ["y"])], [(name, FLOAT, [2])], [("y", FLOAT, [2])])

    with pytest.raises(InvalidArgumentError, match="'x_1' of function 'b' would be 'x:1', .*'x.1'"):
        lower_functions(
            {"a": Source(named("x.1"), LowerOptions()), "b": Source(named("x:1"), LowerOptions())},
            tmp_path / "m.mlpackage",
        )
