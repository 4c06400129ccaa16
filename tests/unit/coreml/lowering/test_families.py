"""One hard case or a few of each family of operators, computed by both executors and by ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from support.lowered import BOOL, FLOAT, INT64, check, model_of
from support.odd_attributes import ATTRIBUTES, X, odd_model
from triune.core.errors import UnsupportedError
from triune.coreml.interpreter import Interpreter
from triune.coreml.lowering import LowerOptions, lower
from triune.coreml.package import read_package
from triune.graph.conversion.shapes import InputShape, Range

RNG = np.random.default_rng(7)


def noise(*shape: int) -> Any:
    return (RNG.random(shape, np.float32) * 2 - 1).astype(np.float32)


def one(op: str, x: Any, shape: Any, folder: Path, *more: Any, **attributes: Any) -> None:
    """A node `op` of the input `x` and constants `more`, to one float output."""
    names = [f"c{index}" for index in range(len(more))]
    node = helper.make_node(op, ["x", *names], ["y"], **attributes)
    model = model_of([node], [("x", FLOAT, x.shape)], [("y", FLOAT, shape)], **dict(zip(names, more, strict=True)))
    check(model, {"x": x}, folder)


@pytest.mark.parametrize("op", ["BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot"])
def test_bits_of_64(op: str, tmp_path: Path) -> None:
    x = np.array([5, -7, 2**31 - 1, -(2**31), 0, -1])
    feeds = {"x": x} if op == "BitwiseNot" else {"x": x, "y": np.roll(x, 1)}
    model = model_of([helper.make_node(op, list(feeds), ["z"])], [(n, INT64, [6]) for n in feeds], [("z", INT64, [6])])
    check(model, feeds, tmp_path, atol=0)


@pytest.mark.parametrize("op", ATTRIBUTES)
def test_attributes_of_every_sign(op: str, tmp_path: Path) -> None:
    check(odd_model(op), {"x": X}, tmp_path)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_convolutions_pad_as_onnx_does(auto_pad: str, tmp_path: Path) -> None:
    size = 3 if auto_pad != "VALID" else 2
    one("Conv", noise(1, 2, 6, 6), [1, 3, size, size], tmp_path, noise(3, 2, 3, 3), auto_pad=auto_pad, strides=[2, 2])


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_a_constant_that_a_convolution_subtracts_stays_as_it_is_for_others(op: str, tmp_path: Path) -> None:
    # coremltools negates it where it lies; folded constants can be written, initializers cannot.
    nodes = [
        helper.make_node("Mul", ["c", "two"], ["folded"]),
        helper.make_node(op, ["x", "w"], ["a"]),
        helper.make_node(op, ["x", "v"], ["b"]),
        helper.make_node("Sub", ["a", "folded"], ["y"]),
        helper.make_node("Mul", ["b", "folded"], ["z"]),
        helper.make_node("Sub", ["b", "c"], ["u"]),
    ]
    model = model_of(
        nodes,
        [("x", FLOAT, [1, 3, 4, 4])],
        [(name, FLOAT, [1, 3, 4, 4]) for name in "yzu"],
        c=np.array([1, 2, 3], np.float32).reshape(1, 3, 1, 1),
        two=np.float32(2),
        w=noise(3, 3, 1, 1),
        v=noise(3, 3, 1, 1),
    )
    check(model, {"x": noise(1, 3, 4, 4)}, tmp_path)


@pytest.mark.parametrize(("op", "factor"), [("Div", 1000), ("Mul", 1 / 2000)])
def test_a_sum_over_almost_as_many_is_no_mean(op: str, factor: float, tmp_path: Path) -> None:
    nodes = [helper.make_node("ReduceSum", ["x", "axis"], ["s"]), helper.make_node(op, ["s", "c"], ["y"])]
    values = {"axis": np.array([1]), "c": np.float32(factor)}
    size = round(factor) + 1 if op == "Div" else 1999
    results = check(
        model_of(nodes, [("x", FLOAT, [1, size])], [("y", FLOAT, [1, 1])], **values),
        {"x": np.ones((1, size), np.float32)},
        tmp_path,
        atol=1e-6,
    )
    np.testing.assert_allclose(results["y"], size * factor if op == "Mul" else size / factor, rtol=1e-6)


def test_computed_kernels_are_dilated(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], dilations=[2, 3])
    model = model_of([node], [("x", FLOAT, [1, 1, 8, 9]), ("w", FLOAT, [2, 1, 3, 2])], [("y", FLOAT, [1, 2, 4, 6])])
    check(model, {"x": noise(1, 1, 8, 9), "w": noise(2, 1, 3, 2)}, tmp_path)


def test_transposed_convolutions_may_grow_beyond_the_kernel(tmp_path: Path) -> None:
    attributes = {"strides": [3, 3], "output_padding": [2, 1], "pads": [0, 1, 0, 0]}
    one("ConvTranspose", noise(1, 2, 3, 3), [1, 2, 10, 9], tmp_path, noise(2, 2, 2, 2), noise(2), **attributes)


@pytest.mark.parametrize(
    ("shape", "auto_pad"), [([10, 8], "NOTSET"), ([11, 7], "NOTSET"), ([8, 6], "SAME_UPPER"), ([11, 8], "SAME_LOWER")]
)
def test_transposed_convolutions_of_a_wanted_size(shape: list[int], auto_pad: str, tmp_path: Path) -> None:
    attributes: dict[str, Any] = {"strides": [3, 2], "output_shape": shape, "auto_pad": auto_pad}
    one("ConvTranspose", noise(1, 2, 3, 3), [1, 1, *shape], tmp_path, noise(2, 1, 3, 3), **attributes)


@pytest.mark.parametrize(("attributes", "shape"), [({}, [10, 5]), ({"output_padding": [1, 0]}, [11, 5])])
@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
def test_a_kernel_smaller_than_the_stride_is_not_filled_up(
    auto_pad: str, attributes: dict[str, Any], shape: list[int], tmp_path: Path
) -> None:
    """As ONNX Runtime has it, and ONNX's shape inference: SAME never adds."""
    given = {"strides": [4, 2], "auto_pad": auto_pad, **attributes}
    one("ConvTranspose", noise(1, 2, 3, 3), [1, 1, *shape], tmp_path, noise(2, 1, 2, 1), **given)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
def test_transposed_convolutions_of_any_size(auto_pad: str, tmp_path: Path) -> None:
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[3, 2], auto_pad=auto_pad)
    model = model_of([node], [("x", FLOAT, [1, 2, "h", "w"])], [("y", FLOAT, [1, 1, "a", "b"])], w=noise(2, 1, 4, 3))
    options = LowerOptions(shapes={"x": InputShape(((1, 2, Range(1, 9), Range(1, 9)),))})
    check(model, {"x": noise(1, 2, 4, 5)}, tmp_path, options)


def _overhanging() -> tuple[Any, Any]:
    """Pools of windows that are larger than the image by less than a stride."""
    nodes = [
        helper.make_node("MaxPool", ["x"], ["a"], kernel_shape=[2, 3], strides=[2, 2]),
        helper.make_node("AveragePool", ["x"], ["b"], kernel_shape=[3, 3], strides=[3, 1], pads=[1, 0, 0, 1]),
        helper.make_node(
            "AveragePool", ["x"], ["c"], kernel_shape=[3, 3], strides=[3, 1], pads=[1, 0, 0, 1], count_include_pad=1
        ),
        helper.make_node("LpPool", ["x"], ["d"], kernel_shape=[2, 2], strides=[2, 1]),
    ]
    outputs = [(name, FLOAT, [1, 2, None, None]) for name in "abcd"]
    return model_of(nodes, [("x", FLOAT, [1, 2, 1, 6])], outputs), {"x": noise(1, 2, 1, 6) - 1}


def test_a_pool_may_reach_behind_a_small_image(tmp_path: Path) -> None:
    model, feeds = _overhanging()
    check(model, feeds, tmp_path)


@pytest.mark.parametrize("op", ["AveragePool", "MaxPool"])
def test_pools_end_behind_the_image_in_ceil_mode(op: str, tmp_path: Path) -> None:
    attributes: dict[str, Any] = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 0, 0, 1], "ceil_mode": 1}
    one(op, noise(1, 2, 6, 7), [1, 2, 3, 4], tmp_path, **attributes)


@pytest.mark.parametrize(
    "attributes",
    [
        {"strides": [2, 2], "ceil_mode": 1},
        # A place that would begin in the padding at the end is none.
        {"strides": [4, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1, "kernel_shape": [2, 2]},
        {"strides": [2, 2], "dilations": [2, 1], "pads": [1, 0, 1, 1], "ceil_mode": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("op", ["AveragePool", "AveragePool, padding counted", "LpPool", "MaxPool", "MaxPool, places"])
def test_pools_of_images_of_any_size(op: str, attributes: dict[str, Any], tmp_path: Path) -> None:
    name, _, more = op.partition(", ")
    given = {"kernel_shape": [3, 3], **attributes} | ({"count_include_pad": 1} if more == "padding counted" else {})
    names = ["y", "i"] if more == "places" else ["y"]
    node = helper.make_node(name, ["x"], names, **given)
    outputs = [(each, INT64 if each == "i" else FLOAT, ["n", 2, "a", "b"]) for each in names]
    model = model_of([node], [("x", FLOAT, ["n", 2, "h", "w"])], outputs)
    options = LowerOptions(shapes={"x": InputShape(((Range(1, 3), 2, Range(5, 9), Range(5, 9)),))})
    check(model, {"x": noise(2, 2, 7, 6)}, tmp_path, options)


def test_pools_tell_the_places(tmp_path: Path) -> None:
    node = helper.make_node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2], strides=[1, 2], dilations=[2, 1])
    outputs = [("y", FLOAT, [2, 1, 3, 2]), ("i", INT64, [2, 1, 3, 2])]
    model = model_of([node], [("x", FLOAT, [2, 1, 5, 4])], outputs)
    check(model, {"x": noise(2, 1, 5, 4)}, tmp_path)


@pytest.mark.parametrize(
    ("starts", "ends", "steps", "size"), [([-1], [-9], [-2], 3), ([1], [2**62], [3], 2), ([-3], [-1], [1], 2)]
)
def test_slices_clamp(starts: Any, ends: Any, steps: Any, size: int, tmp_path: Path) -> None:
    operands = [np.array(each, np.int64) for each in (starts, ends, [1], steps)]
    one("Slice", noise(2, 6), [2, size], tmp_path, *operands)


def test_slices_with_computed_bounds(tmp_path: Path) -> None:
    node = helper.make_node("Slice", ["x", "s", "e"], ["y"])
    model = model_of([node], [("x", FLOAT, [6]), ("s", INT64, [1]), ("e", INT64, [1])], [("y", FLOAT, ["n"])])
    for start, end in ((1, 4), (-3, 100), (0, -1)):
        check(model, {"x": noise(6), "s": np.array([start]), "e": np.array([end])}, tmp_path)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_whole_numbers_are_padded(mode: str, tmp_path: Path) -> None:
    node = helper.make_node("Pad", ["x", "p"], ["y"], mode=mode)
    model = model_of([node], [("x", INT64, [2, 3])], [("y", INT64, [4, 6])], p=np.array([1, 2, 1, 1]))
    check(model, {"x": np.array([[2**30 + 1, 2, 3], [4, 5, 6]])}, tmp_path)


@pytest.mark.parametrize(
    ("mode", "coordinates"),
    [("linear", "half_pixel"), ("linear", "align_corners"), ("cubic", "half_pixel"), ("nearest", "asymmetric")],
)
def test_images_are_resized(mode: str, coordinates: str, tmp_path: Path) -> None:
    node = helper.make_node(
        "Resize", ["x", "", "", "sizes"], ["y"], mode=mode, coordinate_transformation_mode=coordinates
    )
    model = model_of([node], [("x", FLOAT, [1, 2, 4, 6])], [("y", FLOAT, [1, 2, 7, 9])], sizes=np.array([1, 2, 7, 9]))
    check(model, {"x": noise(1, 2, 4, 6)}, tmp_path)


def test_images_of_any_size_grow_by_whole_factors(tmp_path: Path) -> None:
    node = helper.make_node(
        "Resize", ["x", "", "s"], ["y"], coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )
    scales = np.array([1, 1, 2, 3], np.float32)
    model = model_of([node], [("x", FLOAT, [1, 1, "h", "w"])], [("y", FLOAT, [1, 1, "a", "b"])], s=scales)
    options = LowerOptions(shapes={"x": InputShape(((1, 1, Range(1, 9), Range(1, 9)),))})
    check(model, {"x": noise(1, 1, 4, 5)}, tmp_path, options)


@pytest.mark.parametrize(("mode", "padding"), [("linear", "zeros"), ("nearest", "reflection"), ("cubic", "border")])
def test_grids_are_sampled(mode: str, padding: str, tmp_path: Path) -> None:
    node = helper.make_node("GridSample", ["x", "g"], ["y"], mode=mode, padding_mode=padding)
    inputs = [("x", FLOAT, [1, 2, 4, 5]), ("g", FLOAT, [1, 3, 3, 2])]
    model = model_of([node], inputs, [("y", FLOAT, [1, 2, 3, 3])])
    check(model, {"x": noise(1, 2, 4, 5), "g": noise(1, 3, 3, 2) * 1.5}, tmp_path)


def test_indices_count_from_the_end_and_may_be_fewer(tmp_path: Path) -> None:
    node = helper.make_node("GatherElements", ["x", "i"], ["y"], axis=1)
    model = model_of([node], [("x", FLOAT, [3, 4]), ("i", INT64, [2, 3])], [("y", FLOAT, [2, 3])])
    check(model, {"x": noise(3, 4), "i": np.array([[0, -1, 2], [3, -4, 1]])}, tmp_path)
    node = helper.make_node("ScatterElements", ["x", "i", "u"], ["y"], axis=1, reduction="add")
    inputs = [("x", FLOAT, [3, 4]), ("i", INT64, [2, 2]), ("u", FLOAT, [2, 2])]
    model = model_of([node], inputs, [("y", FLOAT, [3, 4])])
    check(model, {"x": noise(3, 4), "i": np.array([[0, -1], [1, 1]]), "u": noise(2, 2)}, tmp_path)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "min", "max"])
def test_constants_are_scattered_as_they_are_reduced(reduction: str, tmp_path: Path) -> None:
    """TAPAS scatters large constants; coremltools' own folding ignores the reduction."""
    nodes = [
        helper.make_node("ScatterElements", ["c", "i", "u"], ["s"], axis=1, reduction=reduction),
        helper.make_node("Add", ["s", "x"], ["y"]),
    ]
    places = np.array([[0, 1, 3], [3, -4, 1]]) if reduction == "none" else np.array([[0, -4, 3], [3, 3, 3]])
    constants = {"c": noise(2, 40_000), "i": places, "u": noise(2, 3)}
    model = model_of(nodes, [("x", FLOAT, [1])], [("y", FLOAT, [2, 40_000])], **constants)
    check(model, {"x": noise(1)}, tmp_path)


@pytest.mark.parametrize("is_largest", [0, 1])
@pytest.mark.parametrize("axis", [0, 1])
def test_constants_with_equal_elements_are_sorted_as_onnx_does(axis: int, is_largest: int, tmp_path: Path) -> None:
    """coremltools' own folding of large constants gives equal elements in any order."""
    nodes = [
        helper.make_node("TopK", ["c", "k"], ["v", "i"], axis=axis, largest=is_largest),
        helper.make_node("Cast", ["i"], ["f"], to=FLOAT),
        helper.make_node("Mul", ["f", "v"], ["p"]),
        helper.make_node("Add", ["p", "x"], ["y"]),
    ]
    numbers = np.random.default_rng(0).integers(-3, 3, (400, 300)).astype(np.float32)
    shape = [7, 300] if axis == 0 else [400, 7]
    model = model_of(nodes, [("x", FLOAT, [1])], [("y", FLOAT, shape)], c=numbers, k=np.array([7]))
    check(model, {"x": noise(1)}, tmp_path)


def test_constant_indices_of_more_dimensions_than_core_ml_has_are_scattered(tmp_path: Path) -> None:
    """As `y[..., 0:2] = 2 * y[..., 0:2]` is exported: a tuple of five for each element of a part of rank 5."""
    places = np.stack(np.meshgrid(*map(np.arange, (1, 3, 2, 2, 2)), indexing="ij"), axis=-1)
    nodes = [
        helper.make_node("Slice", ["x", "start", "end", "axis"], ["part"]),
        helper.make_node("Mul", ["part", "two"], ["doubled"]),
        helper.make_node("ScatterND", ["x", "places", "doubled"], ["y"]),
    ]
    bounds = {"start": np.array([0]), "end": np.array([2]), "axis": np.array([-1])}
    shape = [1, 3, 2, 2, 7]
    model = model_of(nodes, [("x", FLOAT, shape)], [("y", FLOAT, shape)], two=np.float32(2), places=places, **bounds)
    check(model, {"x": noise(*shape)}, tmp_path)
    places[..., 1] -= 3  # From the end.
    model = model_of(nodes, [("x", FLOAT, shape)], [("y", FLOAT, shape)], two=np.float32(2), places=places, **bounds)
    check(model, {"x": noise(*shape)}, tmp_path)


def test_truths_are_gathered_and_chosen(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gather", ["flags", "i"], ["some"]),
        helper.make_node("Where", ["some", "a", "b"], ["y"]),
    ]
    inputs = [("flags", BOOL, [3]), ("i", INT64, [2, 2]), ("a", FLOAT, [1])]
    model = model_of(nodes, inputs, [("y", FLOAT, [2, 2])], b=np.float32(7))
    feeds = {"flags": np.array([True, False, True]), "i": np.array([[0, 1], [-1, 1]]), "a": noise(1)}
    check(model, feeds, tmp_path)


def test_one_number_is_gathered_of_inputs_that_are_numbers(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["square"]),
        helper.make_node("Unsqueeze", ["square", "axis"], ["a"]),
        helper.make_node("Unsqueeze", ["x", "axis"], ["b"]),
        helper.make_node("Concat", ["a", "b", "a"], ["c"], axis=0),
        helper.make_node("Gather", ["c", "second"], ["y"]),
        helper.make_node("Gather", ["c", "last"], ["z"]),
    ]
    constants = {"axis": np.array([0]), "second": np.array(1), "last": np.array(-1)}
    model = model_of(nodes, [("x", FLOAT, [])], [("y", FLOAT, []), ("z", FLOAT, [])], **constants)
    check(model, {"x": np.array(2.5, np.float32)}, tmp_path)


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
@pytest.mark.parametrize("steps", [3, 40])
def test_recurrent_layers_go_both_ways(op: str, gates: int, steps: int, tmp_path: Path) -> None:
    hidden, inputs = 2, 3
    weights = {"w": noise(2, gates * hidden, inputs), "r": noise(2, gates * hidden, hidden)}
    node = helper.make_node(op, ["x", "w", "r", "b"], ["y", "h"], hidden_size=hidden, direction="bidirectional")
    outputs = [("y", FLOAT, [steps, 2, 1, hidden]), ("h", FLOAT, [2, 1, hidden])]
    model = model_of([node], [("x", FLOAT, [steps, 1, inputs])], outputs, b=noise(2, 2 * gates * hidden), **weights)
    check(model, {"x": noise(steps, 1, inputs)}, tmp_path)


@pytest.mark.parametrize(
    ("op", "gates", "activations"),
    [
        ("LSTM", 4, ["Sigmoid", "Tanh", "Tanh"]),
        ("LSTM", 4, ["Relu", "Tanh", "Sigmoid"]),
        ("LSTM", 4, ["Sigmoid", "Softsign", "Tanh"]),
        ("GRU", 3, ["Sigmoid", "Tanh"]),
        ("RNN", 1, ["Relu"]),
    ],
)
def test_a_recurrent_layer_that_goes_back_gives_its_steps_in_order(
    op: str, gates: int, activations: list[str], tmp_path: Path
) -> None:
    """All outputs, from states that are given; the third LSTM is one that Core ML has not, and written step by step."""
    states, steps = (["h", "c"] if op == "LSTM" else ["h"]), 4
    names = ["x", "w", "r", "b", "", *states]
    last = [f"{state}_last" for state in states]
    node = helper.make_node(op, names, ["y", *last], hidden_size=2, direction="reverse", activations=activations)
    inputs = [("x", FLOAT, [steps, 2, 3]), *((state, FLOAT, [1, 2, 2]) for state in states)]
    outputs = [("y", FLOAT, [steps, 1, 2, 2]), *((name, FLOAT, [1, 2, 2]) for name in last)]
    weights = {"w": noise(1, gates * 2, 3), "r": noise(1, gates * 2, 2), "b": noise(1, 2 * gates * 2)}
    model = model_of([node], inputs, outputs, **weights)
    check(model, {"x": noise(steps, 2, 3), **{state: noise(1, 2, 2) for state in states}}, tmp_path)


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_rows_end_by_themselves_or_do_not_begin(op: str, gates: int, tmp_path: Path) -> None:
    states = ["s", "c"] if op == "LSTM" else ["s"]
    last = [f"{state}_last" for state in states]
    node = helper.make_node(op, ["x", "w", "r", "", "n", *states], ["y", *last], hidden_size=2, direction="reverse")
    inputs = [("x", FLOAT, [4, 3, 3]), ("n", TensorProto.INT32, [3])]
    outputs = [("y", FLOAT, [4, 1, 3, 2]), *((name, FLOAT, [1, 3, 2]) for name in last)]
    weights = {"w": noise(1, 2 * gates, 3), "r": noise(1, 2 * gates, 2), **{name: noise(1, 3, 2) for name in states}}
    check(
        model_of([node], inputs, outputs, **weights),
        {"x": noise(4, 3, 3), "n": np.array([4, 2, 0], np.int32)},
        tmp_path,
    )


def test_branches_become_cond(tmp_path: Path) -> None:
    value = [helper.make_tensor_value_info("z", FLOAT, [2])]
    then = helper.make_graph([helper.make_node("Neg", ["x"], ["z"])], "t", [], value)
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "e", [], value)
    node = helper.make_node("If", ["flag"], ["y"], then_branch=then, else_branch=other)
    model = model_of([node], [("flag", BOOL, []), ("x", FLOAT, [2])], [("y", FLOAT, [2])])
    for flag in (True, False):
        check(model, {"flag": np.array(flag), "x": noise(2)}, tmp_path)


@pytest.mark.parametrize("limit", [5, 30])
def test_loops_stop_early_and_collect(limit: int, tmp_path: Path) -> None:
    body = helper.make_graph(
        [
            helper.make_node("Add", ["sum", "x"], ["next"]),
            helper.make_node("Less", ["next", "most"], ["go"]),
            helper.make_node("Identity", ["next"], ["seen"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", INT64, []),
            helper.make_tensor_value_info("cond", BOOL, []),
            helper.make_tensor_value_info("sum", FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("go", BOOL, []),
            helper.make_tensor_value_info("next", FLOAT, []),
            helper.make_tensor_value_info("seen", FLOAT, []),
        ],
    )
    node = helper.make_node("Loop", ["limit", "", "zero"], ["total", "all"], body=body)
    model = model_of(
        [node],
        [("x", FLOAT, []), ("most", FLOAT, [])],
        [("total", FLOAT, []), ("all", FLOAT, ["n"])],
        limit=np.array(limit, np.int64),
        zero=np.array(0, np.float32),
    )
    feeds = {"x": np.array(1, np.float32), "most": np.array(3, np.float32)}
    results = check(model, feeds, tmp_path)
    np.testing.assert_array_equal(results["all"], [1, 2, 3])


def test_boxes_suppress_lesser_ones(tmp_path: Path) -> None:
    node = helper.make_node("NonMaxSuppression", ["boxes", "scores", "n", "iou", "least"], ["y"])
    model = model_of(
        [node],
        [("boxes", FLOAT, [1, 12, 4]), ("scores", FLOAT, [1, 2, 12])],
        [("y", INT64, ["n", 3])],
        n=np.array([4]),
        iou=np.array([0.3], np.float32),
        least=np.array([0.1], np.float32),
    )
    check(model, {"boxes": RNG.random((1, 12, 4), np.float32), "scores": RNG.random((1, 2, 12), np.float32)}, tmp_path)


def test_quantization_saturates_and_rounds_to_even(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    model = model_of(nodes, [("x", FLOAT, [6])], [("y", FLOAT, [6])], s=np.array(2, np.float32), z=np.array(3, np.int8))
    check(model, {"x": np.array([1, 3, -1, 5, 999, -999], np.float32)}, tmp_path)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_a_level_is_in_range_also_of_nan(dtype: Any, tmp_path: Path) -> None:
    """ONNX leaves the level of NaN open: ONNX Runtime gives the lowest one on x86."""
    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    zero = np.array(3, dtype)
    model = model_of([node], [("x", FLOAT, [3])], [("q", kind, [3])], s=np.array(2, np.float32), z=zero)
    lowered = lower(model, tmp_path / "m.mlpackage")
    x = np.array([np.nan, 4, -np.inf], np.float32)
    outputs, _ = Interpreter(read_package(lowered.path), "main").run({lowered.inputs["x"]: x}, {})
    levels = outputs[lowered.outputs["q"]]
    limits = np.iinfo(dtype)
    assert limits.min <= levels.min()
    assert levels.max() <= limits.max
    np.testing.assert_array_equal(levels[1:], [5, limits.min])


def test_small_integers_wrap(tmp_path: Path) -> None:
    kind = TensorProto.UINT8
    model = model_of([helper.make_node("Add", ["x", "x"], ["y"])], [("x", kind, [2])], [("y", kind, [2])])
    results = check(model, {"x": np.array([200, 3], np.uint8)}, tmp_path)
    np.testing.assert_array_equal(results["y"], [144, 6])


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 2, 2), (2, 3, 1, 2, 2)])
def test_negative_numbers_have_a_slope_for_each_channel(shape: tuple[int, ...], tmp_path: Path) -> None:
    slopes = np.array([0.1, 2, -1], np.float32).reshape(3, *[1] * (len(shape) - 2))
    node = helper.make_node("PRelu", ["x", "slopes"], ["y"])
    check(model_of([node], [("x", FLOAT, shape)], [("y", FLOAT, shape)], slopes=slopes), {"x": noise(*shape)}, tmp_path)


def test_quotients_of_numbers_that_only_look_like_sizes_are_truncated(tmp_path: Path) -> None:
    # coremltools gives elements of a short vector symbols, as it gives sizes.
    nodes = [
        helper.make_node("Neg", ["x"], ["a"]),
        helper.make_node("Concat", ["x", "a"], ["b"], axis=0),
        helper.make_node("Div", ["b", "seven"], ["y"]),
    ]
    kind = TensorProto.INT32
    model = model_of(nodes, [("x", kind, [2])], [("y", kind, [4])], seven=np.array([7], np.int32))
    results = check(model, {"x": np.array([10, -3], np.int32)}, tmp_path)
    np.testing.assert_array_equal(next(iter(results.values())), [1, 0, -1, 0])


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.5), (1.0, 1.0001), (2.0, -1.0), (-1e6, 1e6)])
def test_values_are_clipped_to_any_ends(low: float, high: float, tmp_path: Path) -> None:
    node = helper.make_node("Clip", ["x", "low", "high"], ["y"])
    ends = {"low": np.array(low, np.float32), "high": np.array(high, np.float32)}
    model = model_of([node], [("x", FLOAT, [4])], [("y", FLOAT, [4])], **ends)
    check(model, {"x": np.array([-3, 0.5, 1, 9], np.float32)}, tmp_path)


def test_what_would_be_empty_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Slice", ["x", "s", "e"], ["y"])
    model = model_of([node], [("x", FLOAT, [4])], [("y", FLOAT, [0])], s=np.array([3]), e=np.array([1]))
    with pytest.raises(UnsupportedError, match="empty"):
        lower(model, tmp_path / "m.mlpackage")


def test_six_dimensions_are_refused_unless_they_vanish(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "six"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=[0, 3, 4, 1, 5, 2]),
        helper.make_node("Reshape", ["b", "four"], ["y"]),
    ]
    shapes = {"six": np.array([1, 2, 2, 2, 2, 3]), "four": np.array([1, 2, 4, 6])}
    model = model_of(nodes, [("x", FLOAT, [1, 8, 2, 3])], [("y", FLOAT, [1, 2, 4, 6])], **shapes)
    check(model, {"x": noise(1, 8, 2, 3)}, tmp_path)
    model = model_of(nodes[:2], [("x", FLOAT, [1, 8, 2, 3])], [("b", FLOAT, [1, 2, 2, 2, 3, 2])], six=shapes["six"])
    with pytest.raises(UnsupportedError, match="rank"):
        lower(model, tmp_path / "m.mlpackage")
