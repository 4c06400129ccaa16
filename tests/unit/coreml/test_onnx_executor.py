"""Running programs with ONNX Runtime: states, classes, large weights, and what is said of bad input."""

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest

from support.mil_programs import make_package, mb
from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from triune.coreml.mil import (
    Block,
    Constant,
    DictionaryType,
    DType,
    Function,
    Name,
    Operation,
    Output,
    Program,
    StateType,
    TensorType,
)
from triune.coreml.onnx_executor import OnnxExecutor
from triune.coreml.package import Package
from triune.coreml.raising import raise_function

X = np.arange(6, dtype=np.float32).reshape(2, 3)
FP32 = TensorType(DType.FP32, (2, 3))


def package_of(inputs: list[Output], operations: list[Operation], outputs: list[str], like: Package) -> Package:
    block = Block((), tuple(operations), tuple(outputs))
    return replace(like, program=Program({"main": Function("main", tuple(inputs), "CoreML8", block)}))


@pytest.fixture(scope="module")
def simple() -> Package:
    return make_package(lambda given: mb.relu(x=given.x), {"x": X})


def counter(like: Package) -> Package:
    """Adds x to a state, and returns what it was and what it is."""
    return package_of(
        [Output("x", FP32), Output("total", StateType(FP32))],
        [
            Operation("read_state", {"input": (Name("total"),)}, (Output("before", FP32),)),
            Operation("add", {"x": (Name("x"),), "y": (Name("before"),)}, (Output("sum", FP32),)),
            Operation("write_state", {"input": (Name("total"),), "data": (Name("sum"),)}, ()),
            Operation("read_state", {"input": (Name("total"),)}, (Output("after", FP32),)),
        ],
        ["before", "after"],
        like,
    )


def test_states_go_in_and_out(simple: Package) -> None:
    executor = OnnxExecutor(counter(simple))
    state = np.ones((2, 3), np.float32)
    outputs, states = executor.run({"x": X}, {"total": state})
    np.testing.assert_array_equal(outputs["before"], state)
    np.testing.assert_array_equal(outputs["after"], X + 1)
    np.testing.assert_array_equal(states["total"], X + 1)
    np.testing.assert_array_equal(state, 1)


def test_states_are_inputs_and_outputs_of_the_graph(simple: Package) -> None:
    model = raise_function(counter(simple))
    onnx.checker.check_model(model, full_check=True)
    assert [each.name for each in model.graph.input] == ["x", "total"]
    assert [each.name for each in model.graph.output] == ["before", "after", "total/new"]


def test_a_state_written_in_a_branch(simple: Package) -> None:
    one = Constant(np.ones((2, 3), np.float32), DType.FP32)
    write = Operation("write_state", {"input": (Name("total"),), "data": (Name("x"),)}, ())
    kept = Operation("identity", {"x": (Name("x"),)}, (Output("kept", FP32),))
    other = Operation("mul", {"x": (Name("x"),), "y": (one,)}, (Output("other", FP32),))
    branches = (Block((), (write, kept), ("kept",)), Block((), (other,), ("other",)))
    package = package_of(
        [Output("x", FP32), Output("go", TensorType(DType.BOOL, ())), Output("total", StateType(FP32))],
        [Operation("cond", {"pred": (Name("go"),)}, (Output("y", FP32),), branches)],
        ["y"],
        simple,
    )
    executor = OnnxExecutor(package)
    state = np.zeros((2, 3), np.float32)
    for go, expected in ((True, X), (False, state)):
        _, states = executor.run({"x": X, "go": np.asarray(go)}, {"total": state})
        np.testing.assert_array_equal(states["total"], expected)


@pytest.mark.parametrize(
    ("classes", "dtype", "expected"),
    [(["cat", "dog", "ant"], DType.STRING, "ant"), ([7, 8, 9], DType.INT64, 9)],
)
def test_classes(simple: Package, classes: list[Any], dtype: DType, expected: Any) -> None:
    listed = Constant(tuple(np.asarray(each, dtype.numpy) for each in classes), dtype)
    outputs = (Output("label", TensorType(dtype, ())), Output("probs", DictionaryType(dtype, DType.FP64)))
    classify = Operation("classify", {"probabilities": (Name("x"),), "classes": (listed,)}, outputs)
    kind = TensorType(DType.FP32, (1, 3))
    package = package_of([Output("x", kind)], [classify], ["label", "probs"], simple)
    found, _ = OnnxExecutor(package).run({"x": np.array([[0.25, 0.125, 0.625]], np.float32)}, {})
    assert found["label"].shape == ()
    assert found["label"].item() == expected
    np.testing.assert_array_equal(found["probs"], np.array([0.25, 0.125, 0.625], np.float32))


def test_large_weights() -> None:
    """They are handed over beside the model."""
    weight = np.random.default_rng(1).normal(size=(600, 600)).astype(np.float32)
    x = np.ones((2, 600), np.float32)
    package = make_package(lambda given: mb.matmul(x=given.x, y=weight), {"x": x})
    outputs, _ = OnnxExecutor(package).run({"x": x}, {})
    np.testing.assert_allclose(next(iter(outputs.values())), x @ weight, rtol=1e-4, atol=1e-3)


def test_fp16_stays_fp16() -> None:
    x = X.astype(np.float16)
    package = make_package(lambda given: mb.exp(x=given.x), {"x": x}, "iOS16")
    outputs, _ = OnnxExecutor(package).run({"x": x}, {})
    have = next(iter(outputs.values()))
    assert have.dtype == np.float16
    np.testing.assert_allclose(have, np.exp(x), rtol=2e-3)


def test_an_input_that_is_an_output(simple: Package) -> None:
    package = package_of([Output("x", FP32)], [], ["x"], simple)
    outputs, _ = OnnxExecutor(package).run({"x": X}, {})
    np.testing.assert_array_equal(outputs["x"], X)


def test_missing_inputs(simple: Package) -> None:
    with pytest.raises(InvalidArgumentError, match="the inputs \\['x'\\] are missing"):
        OnnxExecutor(simple).run({}, {})


def test_inputs_of_another_shape(simple: Package) -> None:
    with pytest.raises(InvalidArgumentError, match="function 'main'"):
        OnnxExecutor(simple).run({"x": X[0]}, {})


def test_an_unknown_function(simple: Package) -> None:
    with pytest.raises(NotFoundError, match="no function 'other'"):
        OnnxExecutor(simple, "other")


def test_all_unknown_operations_are_listed(simple: Package) -> None:
    operations = [
        Operation(name, {"x": (Name("x"),)}, (Output(f"of_{name}", FP32),)) for name in ("teleport", "relu", "hover")
    ]
    package = package_of([Output("x", FP32)], operations, ["of_relu"], simple)
    with pytest.raises(UnsupportedError, match=r"'of_hover' \(hover\), 'of_teleport' \(teleport\)"):
        raise_function(package)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({}, InvalidArgumentError, "'y' \\(softmax\\): the parameter 'x' is missing"),
        ({"x": (Name("x"),), "z": (Name("x"),)}, UnsupportedError, "the parameters \\['z'\\] are not known"),
        ({"x": (Name("x"),), "axis": (Name("x"),)}, UnsupportedError, "'axis' is not a constant"),
        ({"x": (Name("x"), Name("x"))}, InvalidArgumentError, "has 2 values instead of one"),
        (
            {"x": (Name("x"),), "axis": (Constant(np.asarray(9, np.int32), DType.INT32),)},
            InvalidArgumentError,
            "'axis' is 9, but there are 2 dimensions",
        ),
    ],
)
def test_malformed_operations(simple: Package, inputs: Any, error: type[Exception], message: str) -> None:
    package = package_of([Output("x", FP32)], [Operation("softmax", inputs, (Output("y", FP32),))], ["y"], simple)
    with pytest.raises(error, match=message):
        raise_function(package)
