"""Requests of many strings run in a process of their own, and answer as the others do."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from triune.core.errors import InvalidArgumentError, UnavailableError
from triune.core.units import Unit
from triune.runtimes.onnxruntime import OnnxRuntime
from triune.runtimes.onnxruntime.many_strings import MANY_STRINGS, ManyStringsExecutable


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """y = x, strings, in this shape."""
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.STRING, ["n"]) for name in "xy")
    nodes = [onnx.helper.make_node("Reshape", ["x", "shape"], ["y"])]
    shape = onnx.helper.make_tensor_value_info("shape", onnx.TensorProto.INT64, [1])
    graph = onnx.helper.make_graph(nodes, "g", [x, shape], [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_many_strings_run_apart_and_few_do_not(path: Path) -> None:
    executable = OnnxRuntime().load(path, unit=Unit.CPU, num_threads=1, options={})
    assert isinstance(executable, ManyStringsExecutable)
    try:
        seen: list[bool] = []
        for count in (3, MANY_STRINGS + 1, 4):
            texts = [b"", "é".encode(), *(b"%d" % index for index in range(count - 2))]
            x = np.array(texts, np.object_)

            (y,) = executable.run({"x": x, "shape": np.array([count])}, ["y"]).values()

            assert y.tolist() == texts
            seen.append(executable.has_started)
        assert seen == [False, True, True]
    finally:
        executable.close()


def test_what_the_model_refuses_is_told_from_there_too(path: Path) -> None:
    executable = OnnxRuntime().load(path, unit=Unit.CPU, num_threads=1, options={})
    try:
        for count in (3, MANY_STRINGS + 1):
            with pytest.raises(InvalidArgumentError):
                executable.run({"x": np.full(count, b"a", np.object_), "shape": np.array([7])}, ["y"])
    finally:
        executable.close()


def test_many_numbers_that_become_strings_run_apart(tmp_path: Path) -> None:
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.INT32, ["n"])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.STRING, ["n"])
    nodes = [onnx.helper.make_node("Cast", ["x"], ["y"], to=onnx.TensorProto.STRING)]
    graph = onnx.helper.make_graph(nodes, "g", [x], [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    executable = OnnxRuntime().load(tmp_path / "model.onnx", unit=Unit.CPU, num_threads=1, options={})
    assert isinstance(executable, ManyStringsExecutable)
    try:
        seen: list[bool] = []
        # An answer of many strings tells that the next of that size is one, too.
        for count in (3, MANY_STRINGS, MANY_STRINGS + 1, 4, MANY_STRINGS + 1):
            (y_,) = executable.run({"x": np.arange(count, dtype=np.int32)}, ["y"]).values()
            assert y_.tolist() == [b"%d" % index for index in range(count)]
            seen.append(executable.has_started)
        assert seen == [False, False, False, False, True]
    finally:
        executable.close()


def test_a_model_without_strings_is_left_alone(tmp_path: Path) -> None:
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n"]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")

    executable = OnnxRuntime().load(tmp_path / "model.onnx", unit=Unit.CPU, num_threads=1, options={})

    assert not isinstance(executable, ManyStringsExecutable)
    executable.close()


def test_long_strings_that_a_model_copies_run_apart_within_the_limit_of_a_run(tmp_path: Path) -> None:
    """Concat of x eight times: 1 MB of strings is 8 MB of results here, 40 MB are too many for this process."""
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.STRING, [size]) for name, size in ("xm", "yn"))
    graph = onnx.helper.make_graph([onnx.helper.make_node("Concat", ["x"] * 8, ["y"], axis=0)], "g", [x], [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    executable = OnnxRuntime(run_bytes=256 << 20).load(
        tmp_path / "model.onnx", unit=Unit.CPU, num_threads=1, options={}
    )
    assert isinstance(executable, ManyStringsExecutable)
    try:
        seen: list[bool] = []
        for count in (1, 10):
            text = b"a" * 1_000_000
            (answer,) = executable.run({"x": np.full(count, text, np.object_)}, ["y"]).values()
            assert answer.tolist() == [text] * (8 * count)
            seen.append(executable.has_started)
        assert seen == [False, True]
        with pytest.raises((InvalidArgumentError, UnavailableError), match="run-memory-bytes"):
            executable.run({"x": np.full(100, b"a" * 1_000_000, np.object_)}, ["y"])
        (answer,) = executable.run({"x": np.array([b"b"], np.object_)}, ["y"]).values()
        assert answer.tolist() == [b"b"] * 8
    finally:
        executable.close()
