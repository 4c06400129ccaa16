"""Inputs that end a runtime's process end one of its own."""

from pathlib import Path

import numpy as np
import pytest

from support.graphs import model_of
from triune.core.errors import InternalError, InvalidArgumentError
from triune.core.units import Presence, Unit, UnitStatus
from triune.hosting import HostedExecutable
from triune.runtimes.onnxruntime import OnnxRuntime


def test_openvino(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    from triune.runtimes.openvino import OpenVino

    path = tmp_path / "model.onnx"
    text = "g (float[4] x, int64[2] i, float[2] u) => (float[4] y) { y = ScatterElements(x, i, u) }"
    path.write_bytes(model_of(text, opset=17).SerializeToString())
    runtime = OpenVino([UnitStatus(Unit.CPU, Presence.PRESENT, "a CPU")])
    executable = runtime.load(path, unit=Unit.CPU, num_threads=1, options={})
    assert isinstance(executable, HostedExecutable)
    given = {"x": np.zeros(4, np.float32), "i": np.array([3, 0]), "u": np.array([5, 7], np.float32)}
    with pytest.raises(InternalError, match="was killed by SIGSEGV"):
        executable.run({**given, "i": np.array([3, -(2**31)])}, ["y"])
    assert executable.run(given, ["y"])["y"].tolist() == [7, 0, 0, 5]
    executable.close()


def test_onnx_runtime(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    text = "g (float[n,m] x) => (float[n,m] y) { y = com.microsoft.Inverse(x) }"
    path.write_bytes(model_of(text, imports=', "com.microsoft" : 1').SerializeToString())
    executable = OnnxRuntime().load(path, unit=Unit.CPU, num_threads=1, options={})
    assert isinstance(executable, HostedExecutable)
    sound = np.eye(2, dtype=np.float32)
    with pytest.raises(InternalError, match="was killed by SIG"):
        executable.run({"x": np.ones((2, 600), np.float32)}, ["y"])
    np.testing.assert_array_equal(executable.run({"x": sound}, ["y"])["y"], sound)
    executable.close()


@pytest.mark.parametrize(
    ("operator", "ending"),
    [
        ("DynamicQuantizeMatMul(x, b, s, z)", {"s": np.ones(2, np.float32)}),
        ("MatMulIntegerToFloat(a, b, one, s, zero, z)", {"s": np.ones(2, np.float32)}),
    ],
)
def test_scales_that_do_not_fit(operator: str, ending: dict[str, np.ndarray], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    text = f"""g (float[n,k] x, uint8[n,k] a, uint8[k,m] b, float[p] s, uint8[p] z) => (float[n,m] y)
        <float[1] one = {{1}}, uint8[1] zero = {{0}}> {{ y = com.microsoft.{operator} }}"""
    path.write_bytes(model_of(text, imports=', "com.microsoft" : 1').SerializeToString())
    executable = OnnxRuntime().load(path, unit=Unit.CPU, num_threads=1, options={})
    assert isinstance(executable, HostedExecutable)
    given = {
        "x": np.ones((1, 4), np.float32),
        "a": np.ones((1, 4), np.uint8),
        "b": np.full((4, 1), 3, np.uint8),
        "s": np.ones(1, np.float32),
        "z": np.array([2], np.uint8),
    }
    np.testing.assert_allclose(executable.run(given, ["y"])["y"], [[4]], rtol=0.02)
    with pytest.raises(InternalError, match="was killed by SIG"):
        executable.run({**given, **ending}, ["y"])
    executable.close()


def test_openvino_takes_no_more_memory_than_a_run_may(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    from triune.runtimes.openvino import OpenVino

    path = tmp_path / "model.onnx"
    text = "g (float[1] x, int64[1] s) => (float[n] y) { y = Expand(x, s) }"
    path.write_bytes(model_of(text, opset=17).SerializeToString())
    runtime = OpenVino([UnitStatus(Unit.CPU, Presence.PRESENT, "a CPU")], 256 << 20)
    executable = runtime.load(path, unit=Unit.CPU, num_threads=1, options={})
    x = np.ones(1, np.float32)
    assert executable.run({"x": x, "s": np.array([3])}, ["y"])["y"].tolist() == [1, 1, 1]
    with pytest.raises(InvalidArgumentError, match=f"more than the {256 << 20} bytes of memory .*--run-memory-bytes"):
        executable.run({"x": x, "s": np.array([1 << 30])}, ["y"])
    assert executable.run({"x": x, "s": np.array([3])}, ["y"])["y"].tolist() == [1, 1, 1]
    executable.close()
