"""Functions as a whole: their names, graphs that invoke others, what is refused and how."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from support.apple_interpreter import interpret, raised
from support.compared import difference
from support.coreai_programs import Sample, add_graph, axis, grouped, ints, numbers, ops, packed, save, uints
from support.coreai_samples import SAMPLES
from support.raised import computed
from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from triune.coreai.library import authoring
from triune.coreai.lowering.values import tensor_type
from triune.coreai.raising import raise_function

X = numbers(2, 3)
KIND = ([2, 3], np.float32)


def program(*add: Callable[[], Any]) -> Any:
    module = authoring.Module.create()
    with module:
        for each in add:
            each()
    return authoring.AIProgram(module)


def relu(name: str, **named: Any) -> Callable[[], Any]:
    return lambda: add_graph(name, ["x"], [tensor_type(*KIND)], lambda x: ops.relu(x), **named)


def test_names_that_onnx_bears(tmp_path: Path) -> None:
    sample = Sample(lambda x: ops.relu(x), {"größe in px": X})
    model = raised(save(sample, tmp_path / "m.aimodel"))
    assert [value.name for value in model.graph.input] == ["größe in px"]
    np.testing.assert_array_equal(computed(model, {"größe in px": X})["y0"], np.maximum(X, 0))


def test_free_dimensions_stay_free(tmp_path: Path) -> None:
    model = raised(save(Sample(lambda x: ops.relu(x), {"x": X}), tmp_path / "m.aimodel", is_dynamic=True))
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param for dim in dims] == ["x_0", "x_1"]


def test_main_or_the_only_function() -> None:
    assert raise_function(program(relu("alone"))).graph.name == "alone"
    both = program(relu("other"), relu("main"))
    assert raise_function(both).graph.name == "main"
    assert raise_function(both, "other").graph.name == "other"
    with pytest.raises(NotFoundError, match="no function 'third'; it has 'other', 'main'"):
        raise_function(both, "third")
    with pytest.raises(NotFoundError, match="no function 'main'"):
        raise_function(program(relu("a"), relu("b")))


def test_the_function_of_a_file_is_looked_for_before_it_is_read(tmp_path: Path) -> None:
    path = save(Sample(lambda x: ops.relu(x), {"x": X}), tmp_path / "m.aimodel")
    with pytest.raises(NotFoundError, match=r"'m\.aimodel' has no function 'absent'; it has 'main'"):
        raise_function(path, "absent")


def test_graphs_that_others_invoke_are_put_in_place(tmp_path: Path) -> None:
    def around(_module: Any) -> None:
        kind = tensor_type(*KIND)
        inner = lambda x, y: ops.add(ops.relu(x), y)  # noqa: E731
        graphs["inner"] = add_graph("inner", [], [kind, kind], inner, result_names=[""], private=True, no_inline=True)

    graphs: dict[str, Any] = {}

    def called(*values: Any) -> Any:
        return next(iter(graphs["inner"](*values)))

    def build(x: Any, y: Any) -> Any:
        return ops.mul(called(called(x, y), y), y)

    sample = Sample(build, {"x": X, "y": X[::-1].copy()})
    path = save(sample, tmp_path / "m.aimodel", around=around)
    expected = interpret(path, sample.inputs)
    actual = computed(raised(path), sample.inputs)
    assert difference(actual["y0"], expected["y0"]) == ""


@pytest.mark.parametrize("allocation", list(authoring.AllocationType))
def test_constraints_of_hardware_change_no_values(allocation: Any, tmp_path: Path) -> None:
    made = program(lambda: add_graph("main", ["x"], [tensor_type(*KIND)], lambda x: ops.relu(x)))
    layout = authoring.HardwareConstraints(allocation, (1, 1, 64), (1, 1))
    made.set_hardware_constraints("main", {"x": layout, "y0": layout})
    path = tmp_path / "m.aimodel"
    made.save_asset(path)
    assert difference(computed(raised(path), {"x": X})["y0"], interpret(path, {"x": X})["y0"]) == ""


def test_an_input_that_is_an_output() -> None:
    def build(x: Any, y: Any) -> Any:
        return [x, y, x]

    def add() -> Any:
        kinds = [tensor_type(*KIND)] * 2
        return add_graph("main", ["x", "y"], kinds, build, result_names=["x", "first", "second"])

    model = raise_function(program(add))
    results = computed(model, {"x": X, "y": X + 1})
    assert list(results) == ["x/output", "first", "second"]
    np.testing.assert_array_equal(results["first"], X + 1)
    np.testing.assert_array_equal(results["second"], X)


def test_outputs_with_the_names_of_inputs_take_no_other_outputs_name() -> None:
    def add() -> Any:
        names = ["x", "x/output"]
        return add_graph("main", ["x"], [tensor_type(*KIND)], lambda x: [x, ops.relu(x)], result_names=names)

    results = computed(raise_function(program(add)), {"x": X})
    assert list(results) == ["x/output/1", "x/output"]
    np.testing.assert_array_equal(results["x/output/1"], X)
    np.testing.assert_array_equal(results["x/output"], np.maximum(X, 0))


def test_states_are_inputs_and_outputs_even_where_nothing_is_written(tmp_path: Path) -> None:
    def build(x: Any, total: Any) -> Any:
        value, token = ops.read_handle(total, ops.create_token())
        return [token, ops.add(value, x)]

    sample = Sample(build, {"x": X}, states={"total": X + 1})
    model = raised(save(sample, tmp_path / "m.aimodel"))
    results = computed(model, {"x": X, "total": X + 1})
    assert list(results) == ["y0", "total/new"]
    np.testing.assert_array_equal(results["total/new"], X + 1)


@pytest.mark.parametrize("is_taken", [True, False])
def test_a_group_in_a_branch_may_write_a_state(is_taken: bool, tmp_path: Path) -> None:
    """Apple's interpreter dies on states in branches: what must come out is known without it."""

    def counted(x: Any, total: Any) -> Any:
        value, token = ops.read_handle(total, ops.create_token())
        new = ops.add(value, x)
        return [ops.write_handle(total, new, token), new]

    def build(c: Any, x: Any, total: Any) -> Any:
        result, (yes, no) = ops.if_([x.type], c)
        with yes:
            ops.yield_(grouped(counted, lambda kinds: [ops.TokenType.get(), kinds[0]])(x, total)[1:])
        with no:
            ops.yield_([x])
        return [ops.create_token(), result]

    sample = Sample(build, {"c": np.array(is_taken), "x": X}, states={"total": X + 1})
    results = computed(raised(save(sample, tmp_path / "m.aimodel")), {**sample.inputs, **sample.states})
    np.testing.assert_array_equal(results["y0"], X + 1 + X if is_taken else X)
    np.testing.assert_array_equal(results["total/new"], X + 1 + X if is_taken else X + 1)


def test_everything_that_cannot_be_raised_is_told_at_once() -> None:
    def build(x: Any) -> Any:
        number = ops.create_complex(x, x)
        first = ops.real_part(ops.tan(number))
        second = ops.real_part(ops.sigmoid(number))
        return [ops.relu(first), second]

    with pytest.raises(UnsupportedError) as caught:
        raise_function(program(lambda: add_graph("main", ["x"], [tensor_type(*KIND)], build)))
    message = str(caught.value)
    assert message.startswith("'program', function 'main': ")
    assert "coreai.tan: it computes with complex numbers" in message
    assert "coreai.sigmoid: it computes with complex numbers" in message


def test_what_has_no_name_cannot_be_called() -> None:
    with pytest.raises(UnsupportedError, match="output 0 has no name"):
        raise_function(program(relu("main", result_names=[""])))


def test_weights_stay_quantized_where_asked(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(-8, 8, (64, 32))
    scale = numbers(64, 2, low=0.01, high=0.1)
    zero = np.zeros((64, 2), np.float32)

    def build(x: Any) -> Any:
        weight = ops.blockwise_shift_scale(packed(data, "si4"), scale, packed(np.zeros((64, 2)), "si4"), zero)
        return ops.batch_matmul(weight, x)

    path = save(Sample(build, {"x": numbers(32, 3)}), tmp_path / "m.aimodel")
    dense, kept = raised(path), raise_function(path, keep_quantized=True)
    assert {tensor.data_type for tensor in dense.graph.initializer} == {TensorProto.FLOAT}
    assert TensorProto.INT4 in {tensor.data_type for tensor in kept.graph.initializer}
    assert kept.ByteSize() < dense.ByteSize() / 3
    inputs = {"x": numbers(32, 3)}
    expected = interpret(path, inputs)["y0"]
    for model in (dense, kept):
        assert difference(computed(model, inputs)["y0"], expected) == ""


def test_padding_becomes_part_of_the_convolution(tmp_path: Path) -> None:
    model = raised(save(SAMPLES["window"]["conv2d_padded"], tmp_path / "m.aimodel"))
    assert [node.op_type for node in model.graph.node] == ["Conv"]
    model = raised(save(SAMPLES["window"]["conv2d_padded_by_one"], tmp_path / "n.aimodel"))
    assert [node.op_type for node in model.graph.node] == ["Pad", "Conv"]


def test_a_minimum_of_a_maximum_is_a_clip(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        relu6 = ops.broadcasting_minimum(ops.relu(x), np.float32(1))
        return [relu6, ops.broadcasting_minimum(ops.broadcasting_maximum(x, np.float32(-0.5)), np.float32(0.5))]

    path = save(Sample(build, {"x": X}), tmp_path / "m.aimodel")
    model = raised(path)
    assert [node.op_type for node in model.graph.node] == ["Clip", "Clip"]
    expected, actual = interpret(path, {"x": X}), computed(model, {"x": X})
    assert [difference(actual[name], expected[name]) for name in ("y0", "y1")] == ["", ""]


def test_shapes_that_are_declared_are_not_computed(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        rows = ops.slice_(ops.get_shape(x), ints(0), ints(1), ints(1))
        sizes = ops.concat(axis(0), [rows, ops.constant(uints(6))])
        return ops.reshape(x, sizes)

    sample = Sample(build, {"x": numbers(4, 2, 3)}, places={"x": (1, 2)})
    model = raised(save(sample, tmp_path / "m.aimodel", is_dynamic=True))
    assert computed(model, sample.inputs)["y0"].shape == (4, 6)


def test_sizes_need_not_be_held_to_their_type(tmp_path: Path) -> None:
    """Picked and put together they fit; what is computed of them need not."""

    def picked(x: Any) -> Any:
        first = ops.gather_nd(ops.get_shape(x), ints(0))
        shape = ops.concat(axis(0), [ops.expand_dims(ops.cast(first, np.int32), ints(0)), ints(1, 3)])
        return ops.reshape(x, shape)

    def doubled(x: Any) -> Any:
        sizes = ops.get_shape(x)
        return ops.cast(ops.mul(sizes, sizes), np.int32)

    for make, is_held in ((picked, False), (doubled, True)):
        model = raised(save(Sample(make, {"x": X}), tmp_path / "m.aimodel", is_dynamic=True))
        assert ("Min" in [node.op_type for node in model.graph.node]) == is_held
        np.testing.assert_array_equal(computed(model, {"x": X})["y0"], [4, 9] if is_held else X.reshape(2, 1, 3))


def test_two_outputs_of_one_name() -> None:
    def build(x: Any) -> Any:
        return [ops.relu(x), ops.abs_(x)]

    with pytest.raises(InvalidArgumentError, match="two outputs are called 'y'"):
        raise_function(program(lambda: add_graph("main", ["x"], [tensor_type(*KIND)], build, result_names=["y", "y"])))
