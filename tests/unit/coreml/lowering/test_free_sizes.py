"""What Core ML computes of sizes that are known only when the model runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from support.graphs import model_of as graph_of
from support.lowered import BOOL, FLOAT, INT64, check, model_of, plain_answers
from triune.core.errors import UnsupportedError
from triune.coreml.lowering import LowerOptions, lower
from triune.coreml.lowering.options import Target
from triune.coreml.onnx_executor import OnnxExecutor
from triune.coreml.package import read_package
from triune.graph.conversion.options import Precision
from triune.graph.conversion.shapes import InputShape, Range

RNG = np.random.default_rng(3)
ANY = Range(1, 20)


def noise(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def options(**shapes: Any) -> LowerOptions:
    return LowerOptions(shapes={name: InputShape((shape,)) for name, shape in shapes.items()})


@pytest.mark.parametrize("k", [-2, 1, None])
@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("kind", ["float", "int64", "bool"])
def test_triangles_of_matrices_of_any_size(kind: str, upper: int, k: int | None, tmp_path: Path) -> None:
    """Torch's causal mask is the upper triangle above the main diagonal."""
    elem_type = {"float": FLOAT, "int64": INT64, "bool": BOOL}[kind]
    nodes = [
        helper.make_node("Squeeze", ["d", "zero"], ["computed"]),
        helper.make_node("Trilu", ["x", "computed" if k is None else "k"], ["y"], upper=upper),
    ]
    inputs = [("x", elem_type, ["m", "n"]), ("d", INT64, [1])]
    constants = {"zero": np.zeros(1, np.int64), "k": np.array(k or 0, np.int64)}
    model = model_of(nodes, inputs, [("y", elem_type, ["m", "n"])], **constants)
    x = (noise(5, 4) * 9).astype({"float": np.float32, "int64": np.int64, "bool": np.bool_}[kind])
    check(model, {"x": x, "d": np.array([2])}, tmp_path, options(x=(ANY, ANY)))


def test_a_dimension_of_any_size_is_squeezed_where_it_is_one(tmp_path: Path) -> None:
    axes = np.array([1, -1])
    model = model_of(
        [helper.make_node("Squeeze", ["x", "axes"], ["y"])],
        [("x", FLOAT, ["b", "one", "n", 1])],
        [("y", FLOAT, ["b", "n"])],
        axes=axes,
    )
    check(model, {"x": noise(3, 1, 5, 1)}, tmp_path, options(x=(ANY, ANY, ANY, 1)))


def test_a_vector_of_any_size_is_reshaped_to_a_scalar_where_it_has_one_element(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Reshape", ["r", "none"], ["y"])]
    model = model_of(nodes, [("x", FLOAT, ["n"])], [("y", FLOAT, [])], none=np.zeros(0, np.int64))
    check(model, {"x": np.array([2.5], np.float32)}, tmp_path, options(x=(ANY,)))


@pytest.mark.parametrize("length", [1, 5])
@pytest.mark.parametrize("axis", [1, -2])
@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("elem_type", [FLOAT, INT64])
def test_running_sums_without_the_element_itself(
    elem_type: int, reverse: int, axis: int, length: int, tmp_path: Path
) -> None:
    """An infinity is in the sums after it alone; the sums are as long as what is summed."""
    nodes = [
        helper.make_node("CumSum", ["x", "axis"], ["sums"], exclusive=1, reverse=reverse),
        helper.make_node("Add", ["x", "sums"], ["with_it"]),
    ]
    outputs = [("sums", elem_type, [1, "n", 2]), ("with_it", elem_type, [1, "n", 2])]
    model = model_of(nodes, [("x", elem_type, [1, "n", 2])], outputs, axis=np.array(axis))
    if elem_type == FLOAT:
        x = noise(1, length, 2)
        x[0, length // 2, 1] = np.inf
    else:
        x = np.arange(-3, 2 * length - 3).reshape(1, length, 2)
    check(model, {"x": x}, tmp_path, options(x=(1, ANY, 2)))


def _resize(kinds: Mapping[str, Any], sizes: str) -> Any:
    """`x` resized to the size of `y`; by `sizes`, or by the `scales` that the sizes make."""
    nodes = [
        helper.make_node("Shape", ["y"], ["wanted"], start=2),
        helper.make_node("Shape", ["x"], ["own"], start=2),
        helper.make_node("Cast", ["wanted"], ["over"], to=FLOAT),
        helper.make_node("Cast", ["own"], ["under"], to=FLOAT),
        helper.make_node("Div", ["over", "under"], ["scales"]),
        helper.make_node("Resize", ["x", "", *(["", "wanted"] if sizes == "sizes" else ["scales"])], ["z"], **kinds),
    ]
    inputs = [("x", FLOAT, ["b", 2, "h", "w"]), ("y", FLOAT, ["b", 2, "p", "q"])]
    return model_of(nodes, inputs, [("z", FLOAT, ["b", 2, "r", "s"])])


@pytest.mark.parametrize("given", ["sizes", "scales"])
@pytest.mark.parametrize(
    ("mode", "coordinates", "more"),
    [
        ("nearest", "asymmetric", {"nearest_mode": "floor"}),
        ("nearest", "half_pixel", {}),
        ("nearest", "tf_half_pixel_for_nn", {"nearest_mode": "floor"}),
        ("linear", "half_pixel", {}),
        ("linear", "align_corners", {}),
        ("linear", "pytorch_half_pixel", {}),
        ("cubic", "half_pixel_symmetric", {"exclude_outside": 1}),
    ],
)
def test_images_are_resized_to_the_size_of_others(
    mode: str, coordinates: str, more: dict[str, Any], given: str, tmp_path: Path
) -> None:
    kinds = {"mode": mode, "coordinate_transformation_mode": coordinates, "axes": [2, 3], **more}
    shape = (ANY, 2, ANY, ANY)
    check(_resize(kinds, given), {"x": noise(1, 2, 3, 8), "y": noise(1, 2, 7, 5)}, tmp_path, options(x=shape, y=shape))


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("kind", ["Conv", "MaxPool", "AveragePool", "counted", "integers"])
@pytest.mark.parametrize("size", [3, 4])
def test_windows_over_images_of_any_size_are_padded(kind: str, auto_pad: str, size: int, tmp_path: Path) -> None:
    words: dict[str, Any] = {"strides": [2, 3], "auto_pad": auto_pad, "kernel_shape": [size, size]}
    elem_type = TensorProto.INT8 if kind == "integers" else FLOAT
    op = {"counted": "AveragePool", "integers": "MaxPool"}.get(kind, kind)
    more = {"count_include_pad": 1} if kind == "counted" else {}
    node = helper.make_node(op, ["x", "w"] if op == "Conv" else ["x"], ["y"], **words, **more)
    constants = {"w": noise(4, 2, size, size)} if op == "Conv" else {}
    model = model_of([node], [("x", elem_type, ["b", 2, "h", 11])], [("y", elem_type, None)], **constants)
    for height in (5, 6, 10):
        x = (noise(1, 2, height, 11) * 9).astype(np.int8 if kind == "integers" else np.float32)
        check(model, {"x": x}, tmp_path, options(x=(ANY, 2, ANY, 11)))


def test_the_lower_padding_is_of_newer_systems(tmp_path: Path) -> None:
    node = helper.make_node("MaxPool", ["x"], ["y"], strides=[2], auto_pad="SAME_LOWER", kernel_shape=[3])
    model = model_of([node], [("x", FLOAT, [1, 2, "h"])], [("y", FLOAT, None)])
    shapes = {"x": InputShape(((1, 2, ANY),))}
    with pytest.raises(UnsupportedError, match="give --target iOS16 or later"):
        lower(model, tmp_path / "m.mlpackage", LowerOptions(shapes=shapes, target=Target.IOS15))


def test_enumerated_shapes_of_several_inputs_are_of_newer_systems(tmp_path: Path) -> None:
    inputs = [("a", FLOAT, ["m"]), ("b", FLOAT, ["m"])]
    model = model_of([helper.make_node("Add", ["a", "b"], ["y"])], inputs, [("y", FLOAT, None)])
    several = InputShape(((1,), (2,)))
    lower(model, tmp_path / "m.mlpackage", LowerOptions(shapes={"a": several, "b": several}))
    with pytest.raises(UnsupportedError, match="'a', 'b' have several shapes each, which needs iOS18"):
        lower(
            model,
            tmp_path / "m.mlpackage",
            LowerOptions(shapes={"a": several, "b": several}, target=Target.IOS17),
        )


def test_computed_scales_below_one_stretch_over_the_floored_length(tmp_path: Path) -> None:
    """As ONNX Runtime has it, and not ONNX's test resize_downsample_scales_linear_align_corners."""
    node = helper.make_node(
        "Resize", ["x", "", "s"], ["y"], mode="linear", coordinate_transformation_mode="align_corners"
    )
    model = model_of([node], [("x", FLOAT, [1, 1, 2, 4]), ("s", FLOAT, [4])], [("y", FLOAT, [1, 1, "a", "b"])])
    path = lower(model, tmp_path / "m.mlpackage").path
    given = {"x": np.arange(1, 9, dtype=np.float32).reshape(1, 1, 2, 4), "s": np.array([1, 1, 0.6, 0.6], np.float32)}
    results, _ = OnnxExecutor(read_package(path)).run(given, {})
    np.testing.assert_allclose(results["y"].reshape(-1), [1, 4], rtol=1e-5)


def test_places_of_long_dimensions_are_exact_in_fp16(tmp_path: Path) -> None:
    kinds: dict[str, Any] = {"mode": "nearest", "nearest_mode": "floor", "axes": [2, 3]}
    model = _resize({**kinds, "coordinate_transformation_mode": "asymmetric"}, "sizes")
    shape = (1, 2, 1, Range(1, 9000))
    shapes = {name: InputShape((shape,)) for name in "xy"}
    path = lower(model, tmp_path / "m.mlpackage", LowerOptions(shapes=shapes, precision=Precision.FP16)).path
    x = np.arange(6000, dtype=np.float32).reshape(1, 2, 1, 3000) % 997
    feeds = {"x": x, "y": noise(1, 2, 1, 4500)}
    results, _ = OnnxExecutor(read_package(path)).run(feeds, {})
    np.testing.assert_array_equal(results["z"], plain_answers(model, feeds)[0])


def test_what_fp32_would_place_elsewhere_is_refused(tmp_path: Path) -> None:
    model = _resize({"coordinate_transformation_mode": "half_pixel_symmetric", "axes": [2, 3]}, "sizes")
    shape = (ANY, 2, ANY, ANY)
    with pytest.raises(UnsupportedError, match="half_pixel_symmetric, nearest, of a dimension of no fixed size; fix"):
        lower(model, tmp_path / "m.mlpackage", options(x=shape, y=shape))


def _loop(trip: str, row: list[int | str] | None) -> Any:
    """Running sums of the rows of `x`, until they are above 3."""
    nodes = [
        helper.make_node("Gather", ["x", "i"], ["r"]),
        helper.make_node("Add", ["s", "r"], ["t"]),
        helper.make_node("ReduceMax", ["t"], ["m"], keepdims=0),
        helper.make_node("Less", ["m", "three"], ["on"]),
        helper.make_node("Identity", ["t"], ["each"]),
    ]
    body = helper.make_graph(
        nodes,
        "body",
        [
            helper.make_tensor_value_info("i", INT64, []),
            helper.make_tensor_value_info("c", BOOL, []),
            helper.make_tensor_value_info("s", FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", BOOL, []),
            helper.make_tensor_value_info("t", FLOAT, None),
            helper.make_tensor_value_info("each", FLOAT, row),
        ],
        [numpy_helper.from_array(np.float32(3), "three")],
    )
    outer = [
        helper.make_node("Shape", ["x"], ["length"], end=1),
        helper.make_node("Loop", [trip, "", "start"], ["last", "all"], body=body),
    ]
    inputs = [("x", FLOAT, ["t", "b"]), ("start", FLOAT, ["b"])]
    return model_of(outer, inputs, [("last", FLOAT, ["b"]), ("all", FLOAT, ["n", "b"])])


@pytest.mark.parametrize("row", [None, ["b"]])
@pytest.mark.parametrize("step", [0.1, 1.0])
def test_as_many_steps_are_collected_as_there_are(row: list[int | str] | None, step: float, tmp_path: Path) -> None:
    feeds = {"x": np.full((6, 2), step, np.float32), "start": np.zeros(2, np.float32)}
    check(_loop("length", row), feeds, tmp_path, options(x=(ANY, ANY), start=(ANY,)))


def test_steps_without_a_limit_are_not_collected(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="the number of steps has no limit; give the Loop a trip count"):
        lower(_loop("", ["b"]), tmp_path / "m.mlpackage", options(x=(ANY, ANY), start=(ANY,)))


@pytest.mark.parametrize("places", [[0, 1, 1, 0], [-1, 1, -2, -1]])
@pytest.mark.parametrize("op", ["ScatterElements", "GatherElements"])
def test_known_places_in_a_dimension_of_any_size(op: str, places: list[int], tmp_path: Path) -> None:
    """Those below 0 are counted from its end, once it is known."""
    operands, kinds = (["x", "i"], {}) if op == "GatherElements" else (["x", "i", "u"], {"reduction": "add"})
    nodes = [helper.make_node(op, operands, ["y"], axis=0, **kinds)]
    shape = [1, 4] if op == "GatherElements" else ["n", 4]
    model = model_of(
        nodes, [("x", FLOAT, ["n", 4])], [("y", FLOAT, shape)], i=np.array([places]), u=np.ones((1, 4), np.float32)
    )
    check(model, {"x": noise(5, 4)}, tmp_path, options(x=(Range(2, 20), 4)))


@pytest.mark.parametrize(("rows", "num_rows"), [("n", 3), ("m", 3), ("m", 2)])
def test_elements_are_gathered_of_rows_whose_number_has_another_name(rows: str, num_rows: int, tmp_path: Path) -> None:
    """ONNX reads the first rows where the indices have fewer."""
    model = model_of(
        [helper.make_node("GatherElements", ["x", "i"], ["y"], axis=1)],
        [("x", FLOAT, ["n", 4]), ("i", INT64, [rows, 2])],
        [("y", FLOAT, [rows, 2])],
    )
    indices = RNG.integers(-4, 4, (num_rows, 2))
    check(model, {"x": noise(3, 4), "i": indices}, tmp_path, options(x=(ANY, 4), i=(ANY, 2)))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("reduction", ["none", "add", "max"])
def test_elements_are_scattered_into_zeros_of_any_size(reduction: str, batch: int, tmp_path: Path) -> None:
    """One-hot rows of an argmax, as GroupViT writes them: for coremltools the zeros have a size of their own."""
    text = f"""g (float[b,4,6] x) => (float[b,4,6] y) <int64[1] axes = {{1}}, float none = {{0}}> {{
        s = Shape (x) z = ConstantOfShape <value = float[1] {{0.5}}> (s) i = ArgMax <axis = 1> (x)
        u = ReduceMax <keepdims = 1> (x, axes) e = Add (u, none)
        y = ScatterElements <axis = 1, reduction = "{reduction}"> (z, i, e) }}"""
    check(graph_of(text, opset=18), {"x": noise(batch, 4, 6)}, tmp_path, options(x=(Range(1, 4), 4, 6)))
