"""What is MLX's own: its unit, and 16 bits. The rest is held by tests/contract/runtimes."""

import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest

from support.graphs import model_of
from triune.core.errors import InvalidArgumentError, UnitLostError, UnsupportedError
from triune.core.runtime import Executable
from triune.core.units import Presence, Unit, UnitStatus
from triune.runtimes.mlx import Mlx, runtime

GPU = UnitStatus(Unit.GPU, Presence.EMULATED, reason="for a test")
ABSENT = UnitStatus(Unit.GPU, Presence.ABSENT, reason="no GPU here")
TEXT = "g (float[n,3] x, int64[n] i) => (float[n,3] y, int64[n] j) { w = Softmax(x) y = Mul(w, x) j = Add(i, i) }"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    onnx.save(model_of(TEXT, opset=21), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_it_runs_on_the_gpu_alone(path: Path) -> None:
    assert Mlx([GPU]).units() == (Unit.GPU,)
    with pytest.raises(UnsupportedError, match="backend 'mlx' runs on unit 'gpu', not on 'cpu'"):
        Mlx([GPU]).load(path, unit=Unit.CPU, num_threads=1, options={})
    assert Mlx([ABSENT]).units() == Mlx([]).units() == ()


def test_another_process_gets_a_copy(path: Path) -> None:
    copy = pickle.loads(pickle.dumps(Mlx([GPU], 5)))
    assert copy.units() == (Unit.GPU,)


@pytest.mark.parametrize(("precision", "told"), [("source", "fp32"), ("BF16", "bf16"), ("fp16", "fp16")])
def test_floats_are_computed_in_what_the_model_has_or_in_16_bits(precision: str, told: str, path: Path) -> None:
    executable = Mlx([GPU]).load(path, unit=Unit.GPU, num_threads=1, options={"mlx.precision": precision})
    assert executable.precision == told
    # The event loop would wait for other models.
    assert not executable.is_steady
    x, i = np.array([[1 / 3, -2, 5]], np.float32), np.array([7])
    found = executable.run({"x": x, "i": i}, ["j", "y"])
    assert (found["j"].dtype, found["j"].tolist()) == (np.int64, [14])
    assert found["y"].dtype == np.float32
    error = np.abs(found["y"] - x * np.exp(x - 5) / np.exp(x - 5).sum()).max()
    assert error < 1e-6 if told == "fp32" else 1e-6 < error < 3e-2


def test_instances_of_a_file_share_what_mlx_has_and_see_a_new_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    own = runtime.load

    def counted(path: Path) -> onnx.ModelProto:
        made.append(path)
        return own(path)

    mlx = Mlx([GPU])
    x, i = np.array([[1.0, 2.0, 3.0]], np.float32), np.array([7])

    def loaded(precision: str = "source") -> Executable:
        return mlx.load(path, unit=Unit.GPU, num_threads=1, options={"mlx.precision": precision})

    first = loaded()
    monkeypatch.setattr(runtime, "load", counted)
    second, third = loaded(), loaded("fp16")
    assert len(made) == 3, "the file is read for each, and lowered anew in fp16 alone"
    expected = first.run({"x": x, "i": i}, ["y", "j"])
    first.close()
    np.testing.assert_array_equal(second.run({"x": x, "i": i}, ["y"])["y"], expected["y"])
    assert third.run({"x": x, "i": i}, ["j"])["j"].tolist() == [14]
    onnx.save(model_of(TEXT.replace("Add(i, i)", "Mul(i, i)"), opset=21), path)
    fourth = loaded()
    assert fourth.run({"x": x, "i": i}, ["j"])["j"].tolist() == [49]
    assert second.run({"x": x, "i": i}, ["j"])["j"].tolist() == [14]


def test_fp16_has_no_integers_beyond_int32(path: Path) -> None:
    executable = Mlx([GPU]).load(path, unit=Unit.GPU, num_threads=1, options={"mlx.precision": "fp16"})
    x = np.zeros((1, 3), np.float32)
    with pytest.raises(InvalidArgumentError, match="input 'i' holds 4294967296"):
        executable.run({"x": x, "i": np.array([2**32])}, ["j"])


def test_another_precision_is_refused(path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"'mlx.precision' is 'int8'; write one of source, bf16, fp16"):
        Mlx([GPU]).load(path, unit=Unit.GPU, num_threads=1, options={"mlx.precision": "int8"})


def test_an_array_beyond_the_limit_of_a_run_is_refused(tmp_path: Path) -> None:
    onnx.save(model_of("g (int64[1] n) => (float[m] y) { y = ConstantOfShape(n) }", opset=21), tmp_path / "model.onnx")
    executable = Mlx([GPU], 4000).load(tmp_path / "model.onnx", unit=Unit.GPU, num_threads=1, options={})
    with pytest.raises(InvalidArgumentError, match=r"ConstantOfShape 'y' takes more than the 4000 bytes of memory"):
        executable.run({"n": np.array([1001])}, ["y"])
    assert executable.run({"n": np.array([1000])}, ["y"])["y"].shape == (1000,)


def test_a_run_without_memory_fails_alone(tmp_path: Path) -> None:
    text = "g (float[n,1] a, float[1,m] b) => (float z) { y = Mul(a, b) z = ReduceMax<keepdims = 0>(y) }"
    onnx.save(model_of(text, opset=21), tmp_path / "model.onnx")
    executable = Mlx([GPU]).load(tmp_path / "model.onnx", unit=Unit.GPU, num_threads=1, options={})
    for size in (3, 10_000_000, 4):
        inputs = {"a": np.ones((size, 1), np.float32), "b": np.ones((1, size), np.float32)}
        if size < 10:
            assert executable.run(inputs, ["z"])["z"] == 1
            continue
        message = r"Unable to allocate 400000000000000 bytes \(of shapes a \[10000000,1\], b \[1,10000000\]\)"
        with pytest.raises(InvalidArgumentError, match=message):
            executable.run(inputs, ["z"])


def test_a_gpu_that_is_lost_is_told_as_such(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable = Mlx([GPU]).load(path, unit=Unit.GPU, num_threads=1, options={})

    def fail(*_: object) -> None:
        raise RuntimeError("cudaGraphLaunch failed: an illegal memory access was encountered")

    monkeypatch.setattr(executable, "_function", fail)
    with pytest.raises(UnitLostError, match="illegal memory access"):
        executable.run({"x": np.zeros((1, 3), np.float32), "i": np.array([1])}, ["j"])
