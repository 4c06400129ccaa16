import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from support.mil_models import save_accumulator
from support.mil_programs import make_package, mb
from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from triune.coreml.interpreter import Interpreter
from triune.coreml.interpreter.operations import OPERATIONS
from triune.coreml.mil import Array, Block, Constant, DType, Function, Name, Operation, Output, Program, TensorType
from triune.coreml.package import Package, read_package
from triune.coreml.parameters import PARAMETERS

X = np.array([1, -2, 3], np.float32)


def package_of(build: Callable[[Any], Any], **inputs: Array) -> Package:
    return make_package(build, inputs, "iOS18")


def changed(package: Package, change: Callable[[Operation], Operation]) -> Package:
    """The package with one function whose last operation is another."""
    function = package.function()
    *others, last = function.block.operations
    block = Block(function.block.inputs, (*others, change(last)), function.block.outputs)
    program = Program({function.name: Function(function.name, function.inputs, function.opset, block)})
    return dataclasses.replace(package, program=program)


def relu_with(**changes: Any) -> Package:
    return changed(package_of(lambda v: mb.relu(x=v.x), x=X), lambda last: dataclasses.replace(last, **changes))


def run(package: Package, **inputs: Array) -> Mapping[str, Array]:
    return Interpreter(package).run(inputs, {})[0]


def test_every_operation_is_known() -> None:
    assert PARAMETERS.keys() - OPERATIONS.keys() == {"cond", "const", "read_state", "while_loop", "write_state"}
    assert not OPERATIONS.keys() - PARAMETERS.keys()


def test_unknown_operations_and_parameters_are_refused_before_they_run() -> None:
    with pytest.raises(UnsupportedError, match=r"operation 'relu_\d+' \(warp\): .* does not know the operation 'warp'"):
        Interpreter(relu_with(op="warp"))
    with pytest.raises(InvalidArgumentError, match="its parameter 'x' is missing"):
        Interpreter(relu_with(inputs={}))
    inputs = {"x": (Name("x"),), "strength": (Name("x"),)}
    with pytest.raises(InvalidArgumentError, match=r"no parameter 'strength'; it has \['x'\]"):
        Interpreter(relu_with(inputs=inputs))
    with pytest.raises(InvalidArgumentError, match="its parameter 'x' has 2 values; it takes one"):
        Interpreter(relu_with(inputs={"x": (Name("x"), Name("x"))}))
    with pytest.raises(InvalidArgumentError, match=r"\(cond\): it has 0 blocks; it takes 2"):
        Interpreter(relu_with(op="cond", inputs={"pred": (Name("x"),)}))
    with pytest.raises(NotFoundError, match=r"no function 'second'; it has \['main'\]"):
        Interpreter(relu_with(), "second")


def test_outputs_must_be_what_is_declared() -> None:
    name = relu_with().function().block.outputs[0]
    longer = relu_with(outputs=(Output(name, TensorType(DType.FP32, (4,))),))
    with pytest.raises(InvalidArgumentError, match=rf"output '{name}': declared with shape \[4\], .* computes \[3\]"):
        run(longer, x=X)
    whole = relu_with(outputs=(Output(name, TensorType(DType.INT32, (3,))),))
    with pytest.raises(UnsupportedError, match="declared as int32, but it computes float32"):
        run(whole, x=X)
    two = relu_with(outputs=(Output(name, TensorType(DType.FP32, (3,))), Output("b", TensorType(DType.FP32, (3,)))))
    with pytest.raises(UnsupportedError, match="2 outputs are declared, 1 computed"):
        run(two, x=X)


def test_states_keep_their_type(tmp_path: Path) -> None:
    package = read_package(save_accumulator(tmp_path))
    executor = Interpreter(package)
    given = {"total": np.ones((1, 2), np.float16)}
    outputs, states = executor.run({"x": np.ones((1, 2), np.float16)}, given)
    np.testing.assert_array_equal(states["total"], [[2, 2]])
    np.testing.assert_array_equal(outputs["y"], [[2, 2]])
    np.testing.assert_array_equal(given["total"], [[1, 1]])
    with pytest.raises(InvalidArgumentError, match="no state 'total'"):
        executor.run({"x": np.ones((1, 2), np.float16)}, {})


def test_inputs_that_are_missing() -> None:
    with pytest.raises(InvalidArgumentError, match="no input 'x'"):
        run(relu_with())


def test_each_operation_of_fp16_rounds_once() -> None:
    # 2048 + 1 is no fp16 number; a sum that was rounded at each step would stay at 2048.
    values = np.array([2048, 1, 1, 1], np.float16)
    (total,) = run(package_of(lambda v: mb.reduce_sum(x=v.x, axes=[0], keep_dims=True), x=values), x=values).values()
    assert total.dtype == np.float16
    np.testing.assert_array_equal(total, [2052])
    (twice,) = run(package_of(lambda v: mb.sub(x=mb.add(x=v.x, y=np.float16(1)), y=v.x), x=values), x=values).values()
    np.testing.assert_array_equal(twice, [0, 1, 1, 1])


def test_exact_operations_still_round_their_results() -> None:
    values = np.array([1e8, 1, 1, -1e8], np.float32)
    package = package_of(lambda v: mb.reduce_sum(x=v.x, axes=[0], keep_dims=True), x=values)
    (total,) = Interpreter(package, is_exact=True).run({"x": values}, {})[0].values()
    assert total.dtype == np.float32
    np.testing.assert_array_equal(total, [2])
    (near,) = run(package, x=values).values()
    np.testing.assert_array_equal(near, [0])
    package = package_of(lambda v: mb.sub(x=mb.add(x=v.x, y=np.float32(1)), y=v.x), x=values)
    (twice,) = Interpreter(package, is_exact=True).run({"x": values}, {})[0].values()
    np.testing.assert_array_equal(twice, [0, 1, 1, 0])


def test_what_is_given_is_not_written_to() -> None:
    x = np.zeros((2, 2), np.float32)
    package = package_of(
        lambda v: mb.slice_update(x=v.x, update=np.ones((1, 2), np.float32), begin=[0, 0], end=[1, 2]), x=x
    )
    x.flags.writeable = False
    (answer,) = run(package, x=x).values()
    np.testing.assert_array_equal(answer, [[1, 1], [0, 0]])
    (same,) = run(package_of(lambda v: mb.identity(x=v.x), x=x), x=x).values()
    assert not np.shares_memory(same, x)


@pytest.mark.parametrize(
    ("build", "inputs", "message"),
    [
        (lambda v: mb.gather(x=v.x, indices=v.i), {"i": [3]}, "index 3 into a dimension of 3"),
        (lambda v: mb.gather(x=v.x, indices=v.i), {"i": [-4]}, "index -4 into a dimension of 3"),
        (
            lambda v: mb.scatter(data=v.x, indices=v.i, updates=np.ones(1, np.float32), validate_indices=True),
            {"i": [7]},
            "index 7 into a dimension of 3",
        ),
        (lambda v: mb.reshape(x=v.x, shape=v.i), {"i": [2]}, "do not fit the operation: cannot reshape array"),
        (lambda v: mb.slice_by_size(x=v.x, begin=v.i, size=[2]), {"i": [2]}, "elements 2 to 4 of a dimension of 3"),
        (lambda v: mb.tile(x=v.x, reps=v.i), {"i": [-1]}, "do not fit the operation: negative dimensions"),
        (lambda v: mb.fill(shape=v.i, value=1.0), {"i": [-1]}, "do not fit the operation: negative dimensions"),
    ],
)
def test_values_that_do_not_suit_an_operation(
    build: Callable[[Any], Any], inputs: dict[str, list[int]], message: str
) -> None:
    given = {"x": X, **{name: np.array(values, np.int32) for name, values in inputs.items()}}
    with pytest.raises(InvalidArgumentError, match=f"operation '.*{message}"):
        run(package_of(build, **{**given, "i": np.zeros(1, np.int32)}), **given)


def test_lists_end_where_they_end() -> None:
    def build(v: Any) -> Any:
        ls = mb.make_list(init_length=1, elem_shape=(3,), dynamic_length=False)
        return mb.list_read(ls=mb.list_write(ls=ls, index=mb.squeeze(x=v.i), value=v.x), index=0)

    package = package_of(build, x=X, i=np.zeros(1, np.int32))
    for index, is_there in ((0, True), (1, False), (-1, False)):
        given = {"x": X, "i": np.array([index], np.int32)}
        if is_there:
            np.testing.assert_array_equal(*run(package, **given).values(), X)
        else:
            with pytest.raises(InvalidArgumentError, match=f"index {index} of a list of 1"):
                run(package, **given)


def test_random_numbers_of_a_seed_are_the_same() -> None:
    def build(v: Any) -> Any:
        shape = mb.shape(x=v.x)
        return (
            mb.random_normal(shape=shape, mean=5.0, stddev=0.5, seed=1),
            mb.random_uniform(shape=shape, low=2.0, high=3.0, seed=1),
            mb.random_bernoulli(shape=shape, prob=0.25, seed=1),
            mb.random_categorical(x=mb.mul(x=v.x, y=0.0), mode="logits", size=500, seed=1),
        )

    x = np.zeros((20, 50), np.float32)
    package = package_of(build, x=x)
    normal, uniform, bernoulli, categorical = run(package, x=x).values()
    assert normal.mean() == pytest.approx(5, abs=0.1)
    assert normal.std() == pytest.approx(0.5, abs=0.1)
    assert 2 <= uniform.min() < uniform.max() < 3
    assert set(np.unique(bernoulli)) == {0, 1}
    assert bernoulli.mean() == pytest.approx(0.25, abs=0.05)
    assert categorical.shape == (20, 500)
    assert categorical.mean() == pytest.approx(24.5, abs=1)
    for once, again in zip((normal, uniform, bernoulli, categorical), run(package, x=x).values(), strict=True):
        np.testing.assert_array_equal(once, again)


def test_constants_in_place_of_names() -> None:
    constant = Constant(np.array([-1, 5, 0], np.float32), DType.FP32)
    np.testing.assert_array_equal(*run(relu_with(inputs={"x": (constant,)}), x=X).values(), [0, 5, 0])


def test_attributes_of_others_than_constexpr_are_no_parameters() -> None:
    attributes = MappingProxyType({"strength": Constant(np.array(2), DType.INT32)})
    np.testing.assert_array_equal(*run(relu_with(attributes=attributes), x=X).values(), [1, 0, 3])
