"""Integers of OpenVINO in bodies of control flow, and those that it computes in fp32."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from support.graphs import model_of
from triune.core.errors import InvalidArgumentError
from triune.core.runtime import Executable
from triune.core.units import Unit
from triune.hardware.cpu import read_cpu
from triune.hardware.units import detect_units

pytest.importorskip("openvino")

from triune.runtimes.openvino import OpenVino

LARGE = 2**24 + 1


def load(text: str, folder: Path) -> Executable:
    onnx.save(model_of(text, opset=21), folder / "model.onnx")
    units = detect_units(read_cpu())
    return OpenVino(units).load(folder / "model.onnx", unit=Unit.CPU, num_threads=1, options={})


BRANCH = """g (bool c, uint8[3,2000] a, uint8[2000,4] b) => (int32[3,4] y) {
    y = If (c) <then_branch = t () => (int32[3,4] m) { m = MatMulInteger(a, b) },
                else_branch = e () => (int32[3,4] n) { k = MatMulInteger(a, b) n = Neg(k) }>
}"""
LOOP = """g (int64 n, uint8[3,2000] a, uint8[2000,4] b, int32[3,4] z) => (int32[3,4] y) {
    t = Constant <value = bool {1}> ()
    y = Loop (n, t, z) <body = l (int64 i, bool p, int32[3,4] s) => (bool q, int32[3,4] r) {
        q = Identity(p) m = MatMulInteger(a, b) r = Add(s, m)
    }>
}"""


def test_bodies_of_control_flow_sum_exactly(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.integers(250, 256, shape).astype(np.uint8) for shape in ((3, 2000), (2000, 4)))
    expected = a.astype(np.int64) @ b.astype(np.int64)
    branch = load(BRANCH, tmp_path)
    for each, sign in ((True, 1), (False, -1)):
        found = branch.run({"c": np.array(each), "a": a, "b": b}, ["y"])
        np.testing.assert_array_equal(found["y"], sign * expected)
    loop = load(LOOP, tmp_path)
    found = loop.run({"n": np.array(3), "a": a, "b": b, "z": np.ones((3, 4), np.int32)}, ["y"])
    np.testing.assert_array_equal(found["y"], 3 * expected + 1)


@pytest.mark.parametrize(
    ("text", "operator"),
    [
        ("g (int64[n] x) => (bool[n] y) <int64 c = {16777216}> { y = Equal(x, c) }", "Equal 'y'"),
        ("g (int32[n] x) => (int32[n] y) <int32 c = {3}> { w = Neg(x) y = Div(w, c) }", "Divide 'y'"),
        ("g (int32[n] x) => (int32[n] y) <int32 c = {3}> { y = Mod(x, c) }", "FloorMod 'y'"),
        ("g (int32[n] x) => (int32 y) { y = ReduceMax<keepdims = 0>(x) }", "ReduceMax 'y'"),
    ],
)
def test_numbers_that_it_would_round_are_refused(text: str, operator: str, tmp_path: Path) -> None:
    executable = load(text, tmp_path)
    kind = np.int64 if "int64[n]" in text else np.int32
    assert executable.run({"x": np.array([LARGE - 1, 5], kind)}, ["y"])["y"].shape in ((2,), ())
    with pytest.raises(InvalidArgumentError, match=rf"'x' holds {LARGE}; OpenVINO computes {operator} of it in fp32"):
        executable.run({"x": np.array([LARGE, 5], kind)}, ["y"])


def test_numbers_that_are_handed_on_may_be_large(tmp_path: Path) -> None:
    text = "g (int32[n] x, int32[n] z) => (int32[n] y, bool[n] s) <int32 c = {5}> { y = Add(x, z) s = Less(z, c) }"
    executable = load(text, tmp_path)
    found = executable.run({"x": np.array([LARGE], np.int32), "z": np.array([2], np.int32)}, ["y", "s"])
    assert (found["y"].tolist(), found["s"].tolist()) == ([LARGE + 2], [True])


def test_a_product_of_unknown_sizes_has_many_parts(tmp_path: Path) -> None:
    text = "g (int32[b,m,k] x, int32[b,k,n] w) => (int32[b,m,n] y) { y = MatMul(x, w) }"
    executable = load(text, tmp_path)
    rng = np.random.default_rng(0)
    for size in (1, 258, 5000):
        x, w = (
            rng.integers(-99, 99, (2, 3, size)).astype(np.int32),
            rng.integers(0, 9999, (2, size, 5)).astype(np.int32),
        )
        np.testing.assert_array_equal(executable.run({"x": x, "w": w}, ["y"])["y"], x @ w)
