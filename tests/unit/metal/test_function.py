"""Programs called with arrays: compiled or not, the answers are those of ONNX Runtime."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.graphs import answers, model_of
from triune.core.errors import UnsupportedError
from triune.metal.function import MOST_COMPILED, Function, OutsideError
from triune.metal.library import exclusive, mx
from triune.metal.lower import lower

MODELS = {
    "elements": "g (float[n,4] x) => (float[n,4] y) { a = Exp(x) b = Add(a, x) y = Tanh(b) }",
    # What is computed of shapes is known while a function is compiled.
    "shapes": """g (float[n,4] x) => (float[m] y) {
        s = Shape(x) d = Constant<value = int64[1] {0}>() n = Gather(s, d) f = Constant<value = int64[1] {4}>()
        p = Mul(n, f) y = Reshape(x, p) }""",
    # What is computed of elements is not.
    "values": "g (float[n,4] x) => (int64[2,m] y) { y = NonZero(x) }",
    "integers": """g (float[n,4] x) => (int64[n] y, int64[n] z) {
        y = ArgMax<axis = 1, keepdims = 0>(x) z = Mul(y, y) }""",
}


def _inputs(rows: int) -> dict[str, Any]:
    return {"x": np.random.default_rng(rows).standard_normal((rows, 4)).astype(np.float32)}


@pytest.mark.parametrize("compiles", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_compiled_or_not_the_answers_are_onnx_runtimes(name: str, *, compiles: bool) -> None:
    if compiles and shutil.which("g++") is None:
        pytest.skip("MLX's build for CPUs compiles with g++")
    model = model_of(MODELS[name], opset=21)
    function = Function(lower(model), compiles=compiles)
    names = [value.name for value in model.graph.output]
    for rows in (2, 5, 2):
        for found, right in zip(function(_inputs(rows), names), answers(model, _inputs(rows)), strict=True):
            assert found.dtype == right.dtype
            np.testing.assert_allclose(found, right, rtol=1e-5)


def test_no_call_casts_a_constant(tmp_path: Path) -> None:
    program = lower(model_of("g (float[n,4] x) => (float[n,4] y) <float[4] w = {1,2,3,4}> { y = Mul(x, w) }"), "bf16")
    with exclusive():
        (found,), _ = program({"x": mx.ones((2, 4), dtype=mx.bfloat16)}, ["y"])
        mx.export_to_dot(str(tmp_path / "y.dot"), found)
    text = (tmp_path / "y.dot").read_text()
    assert "Multiply" in text
    assert "AsType" not in text


def test_a_bounded_number_of_compiled_functions_is_kept() -> None:
    model = model_of("g (float[n,4] x) => (float[n,4] y) { y = Neg(x) }")
    function = Function(lower(model), compiles=True)
    for rows in range(1, MOST_COMPILED + 5):
        (found,) = function(_inputs(rows), ["y"])
        assert found.shape == (rows, 4)
        assert function.num_compiled == min(rows, MOST_COMPILED)


INDEXED = {
    "Gather": "g (float[5] x, int64[2] i) => (float[2] y) { y = Gather(x, i) }",
    "GatherElements": "g (float[5] x, int64[2] i) => (float[2] y) { y = GatherElements(x, i) }",
    "ScatterElements": """g (float[5] x, int64[2] i) => (float[5] y) {
        u = Cast<to = 1>(i) y = ScatterElements(x, i, u) }""",
}


@pytest.mark.parametrize("op", INDEXED)
def test_an_index_outside_is_told_and_harms_nothing(op: str) -> None:
    function = Function(lower(model_of(INDEXED[op], opset=21)))
    x = np.arange(5, dtype=np.float32)
    for index in (5, -6, 2**40):
        with pytest.raises(OutsideError, match=rf"an index of {op} 'y' is out of range: the dimension has 5 elements"):
            function({"x": x, "i": np.array([0, index])}, ["y"])
    (found,) = function({"x": x, "i": np.array([-1, 1])}, ["y"])
    expected = [4, 1] if op.startswith("Gather") else [0, 1, 2, 3, -1]
    np.testing.assert_array_equal(found, expected)


LOOP = """g (int64 n, float[2] x) => (float[2] y, float[k,2] z) {
    c = Constant<value_int = 1>() t = Cast<to = 9>(c)
    y, z = Loop(n, t, x) <body = b (int64 i, bool p, float[2] a) => (bool q, float[2] s, float[2] r) {
        q = Identity(p) s = Add(a, a) r = Neg(s) }> }"""


@pytest.mark.parametrize("steps", [0, 1, 3, 70])
@pytest.mark.parametrize("compiles", [False, True])
def test_loops_run_as_often_as_they_are_told(steps: int, *, compiles: bool) -> None:
    function = Function(lower(model_of(LOOP, opset=21)), compiles=compiles)
    x = np.array([1, -2], np.float32)
    y, z = function({"n": np.array(steps), "x": x}, ["y", "z"])
    np.testing.assert_array_equal(y, x * 2.0**steps)
    assert z.shape == (steps, 2)
    np.testing.assert_array_equal(z, [-x * 2.0**step for step in range(1, steps + 1)] or np.zeros((0, 2)))


def test_an_array_beyond_the_limit_is_refused_before_it_is_made() -> None:
    model = model_of("g (int64[2] s) => (float[a,b] y) { y = ConstantOfShape(s) }", opset=21)
    function = Function(lower(model, most_bytes=1 << 20))
    with pytest.raises(MemoryError, match="ConstantOfShape 'y': Unable to allocate 4194304 bytes"):
        function({"s": np.array([1024, 1024])}, ["y"])
    assert function({"s": np.array([1024, 256])}, ["y"])[0].nbytes == 1 << 20


def test_a_default_is_used_unless_the_input_is_given() -> None:
    model = model_of("g (float[2] x, float[1] b = {5}) => (float[2] y) { c = Add(b, b) y = Add(x, c) }", opset=21)
    function = Function(lower(model))
    x = np.ones(2, np.float32)
    np.testing.assert_array_equal(function({"x": x}, ["y"])[0], [11, 11])
    np.testing.assert_array_equal(function({"x": x, "b": np.zeros(1, np.float32)}, ["y"])[0], [1, 1])
    np.testing.assert_array_equal(function({"x": x}, ["y"])[0], [11, 11])


def test_all_that_cannot_be_computed_is_told_at_once() -> None:
    text = """g (uint8[n] x) => (uint8[a,b,c] y, uint8[d,e,f] z) {
        y = ImageDecoder(x) z = ImageDecoder<pixel_format = "BGR">(x) }"""
    with pytest.raises(UnsupportedError, match=r"2 nodes cannot be converted to MLX:\n.*'y'.*\n.*'z'"):
        lower(model_of(text, opset=20))


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 2e-2), ("fp16", 4e-3)])
def test_floats_of_16_bits_are_computed_where_they_are_asked_for(precision: Any, tolerance: float) -> None:
    model = model_of("g (float[n,4] x) => (float[n,4] y) { w = Softmax(x) y = Mul(w, x) }", opset=21)
    (right,) = answers(model, _inputs(3))
    (found,) = Function(lower(model, precision))(_inputs(3), ["y"])
    error = np.abs(found.astype(np.float32) - right).max()
    assert 0 < error < tolerance
