"""Resize of images of fixed and of free sizes: one asset, computed for several images by Apple's interpreter."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper

from support.lowered import FLOAT, INT64, model_of
from support.lowered_coreai import check
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreai.lowering import LowerOptions, lower
from triune.graph.conversion.options import Precision

RNG = np.random.default_rng(7)
FREE: Any = ["n", 2, "h", "w"]
FREE4: Any = [None] * 4
OPERANDS = {"roi": np.float32, "scales": np.float32, "sizes": np.int64}
MODES = ["nearest", "linear", "cubic"]
COORDINATES = ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel", "half_pixel_symmetric"]


def noise(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def images() -> list[Any]:
    return [noise(1, 2, 4, 6), noise(2, 2, 7, 5), noise(1, 2, 9, 20)]


def resize(source: str, result: str, operands: Mapping[str, str], **attributes: Any) -> Any:
    inputs = [source, *(operands.get(name, "") for name in OPERANDS)]
    return helper.make_node("Resize", inputs, [result], **attributes)


def one(shape: Sequence[Any], given: Sequence[str] = (), **attributes: Any) -> ModelProto:
    """A Resize of an image; of its operands, which are among the attributes, those `given` are inputs."""
    operands = {name: np.array(attributes.pop(name), OPERANDS[name]) for name in OPERANDS if name in attributes}
    kinds = {"roi": FLOAT, "scales": FLOAT, "sizes": INT64}
    inputs: Any = [("x", FLOAT, shape), *((name, kinds[name], [operands[name].size]) for name in given)]
    node = resize("x", "y", {name: name for name in operands}, **attributes)
    constants = {name: array for name, array in operands.items() if name not in given}
    return model_of([node], inputs, [("y", FLOAT, [None] * len(shape))], **constants)


def given(name: str, *values: Sequence[float]) -> list[dict[str, Any]]:
    """Images, each with its own operand."""
    arrays = [np.array(value, OPERANDS[name]) for value in values]
    return [{"x": x, name: array} for x, array in zip(images(), arrays, strict=False)]


def several() -> list[dict[str, Any]]:
    return [{"x": x} for x in images()]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_images_are_resized(mode: str, coordinates: str, tmp_path: Path) -> None:
    attributes: Any = {"mode": mode, "coordinate_transformation_mode": coordinates}
    x = {"x": noise(1, 2, 4, 6)}
    for operand in ({"sizes": [1, 2, 7, 9]}, {"scales": [1, 1, 2, 1.5]}, {"sizes": [1, 2, 3, 1]}):
        check(one([1, 2, 4, 6], **attributes, **operand), tmp_path, x)
        check(one([1, 2, "h", "w"], **attributes, **operand), tmp_path, x)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_images_of_any_size_are_resized(mode: str, coordinates: str, tmp_path: Path) -> None:
    attributes: Any = {"mode": mode, "coordinate_transformation_mode": coordinates}
    check(one(FREE, axes=[2, 3], sizes=[7, 11], **attributes), tmp_path, *several())
    for scales in ([1, 1, 1.25, 0.625], [1, 1, 0.75, 0.625]):
        check(one(FREE, scales=scales, **attributes), tmp_path, *several())
    # Of four and six elements both sizes stay, and the image is copied.
    check(one(FREE, scales=[1, 1, 1.15, 1.15], **attributes), tmp_path, *several())
    known: Any = [1, 2, 7, "w"]
    check(one(known, axes=[3, 2], sizes=[9, 4], **attributes), tmp_path, {"x": noise(1, 2, 7, 3)})


@pytest.mark.sampled(4)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_images_are_resized_as_computed(mode: str, coordinates: str, tmp_path: Path) -> None:
    attributes: Any = {"mode": mode, "coordinate_transformation_mode": coordinates}
    model = one(FREE, ["scales"], scales=[1] * 4, **attributes)
    # 1.25 and its like: ONNX Runtime computes a mode in fp64, which decides between elements that are as near.
    calls = given("scales", [1, 1, 2, 1.5], [1, 1, 0.625, 1.25])
    check(model, tmp_path, *calls)
    model = one(FREE, ["sizes"], axes=[2, 3], sizes=[1] * 2, **attributes)
    check(model, tmp_path, *given("sizes", [7, 9], [3, 1], [12, 8]))


@pytest.mark.parametrize("nearest", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric", "align_corners"])
def test_the_nearest_elements_are_picked(nearest: str, coordinates: str, tmp_path: Path) -> None:
    attributes: Any = {"nearest_mode": nearest, "coordinate_transformation_mode": coordinates}
    check(one(FREE, axes=[2, 3], sizes=[6, 10], **attributes), tmp_path, *several())
    check(one(FREE, scales=[1, 1, 2, 0.5], **attributes), tmp_path, *several())


def test_places_between_two_elements_are_those_of_onnx_runtime(tmp_path: Path) -> None:
    # 6.5 by 1.3 is 5 in fp32; in fp64, where 1.3 of fp32 is less than that, it is more.
    check(one(FREE, scales=[1, 1, 1.3, 0.6]), tmp_path, *several())


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("excludes", [0, 1])
def test_images_are_antialiased(mode: str, excludes: int, tmp_path: Path) -> None:
    attributes: Any = {"mode": mode, "antialias": 1, "exclude_outside": excludes}
    # ONNX Runtime leaves out what lies outside, whatever the attribute says.
    check(one(FREE, scales=[1, 1, 0.6, 0.3], **attributes), tmp_path, *several(), by_evaluator=True)
    check(one(FREE, scales=[1, 1, 1.5, 0.5], **attributes), tmp_path, *several(), by_evaluator=True)
    model = one(FREE, ["sizes"], axes=[2, 3], sizes=[1] * 2, **attributes)
    check(model, tmp_path, *given("sizes", [2, 3], [3, 9], [4, 2]), by_evaluator=True)


def test_cubic_interpolation_has_its_own_attributes(tmp_path: Path) -> None:
    for excludes in (0, 1):
        attributes: Any = {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": excludes}
        check(one(FREE, scales=[1, 1, 1.7, 2.5], **attributes), tmp_path, *several())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
def test_images_keep_their_ratio(mode: str, policy: str, tmp_path: Path) -> None:
    attributes: Any = {"mode": mode, "keep_aspect_ratio_policy": policy, "axes": [2, 3]}
    check(one(FREE, sizes=[7, 8], **attributes), tmp_path, *several(), by_evaluator=True)
    model = one(FREE, ["sizes"], sizes=[1, 1], **attributes)
    check(model, tmp_path, *given("sizes", [7, 8], [5, 9], [3, 30]), by_evaluator=True)


@pytest.mark.parametrize("mode", MODES)
def test_regions_are_resized(mode: str, tmp_path: Path) -> None:
    attributes: Any = {
        "mode": mode,
        "coordinate_transformation_mode": "tf_crop_and_resize",
        "extrapolation_value": 10.0,
    }
    region: Any = {"axes": [2, 3], "roi": [-0.5, 0.5, 1.5, 1.25]}
    check(one(FREE, sizes=[5, 9], **region, **attributes), tmp_path, *several())
    check(one(FREE, sizes=[1, 3], axes=[2, 3], roi=[0.5, 1, 0.75, 0], **attributes), tmp_path, *several())
    check(one(FREE, scales=[2, 1.5], **region, **attributes), tmp_path, *several())
    whole: Any = {"roi": [0, 0, 0.2, 0.25, 1, 1, 0.6, 0.75], "scales": [1, 1, 2, 1.5]}
    check(one(["n", 2, 4, 6], **whole, **attributes), tmp_path, {"x": noise(3, 2, 4, 6)})
    model = one(FREE, ["roi"], axes=[2, 3], roi=[0] * 4, sizes=[6, 4], **attributes)
    check(model, tmp_path, *given("roi", [-0.5, 0.25, 1.5, 0.75], [0, 0, 1, 1], [0.125, 0.5, 0.5, 2]))


@pytest.mark.parametrize("mode", MODES)
def test_values_of_any_rank_are_resized(mode: str, tmp_path: Path) -> None:
    attributes: Any = {"mode": mode, "coordinate_transformation_mode": "asymmetric"}
    check(one(["n"], scales=[2.5], **attributes), tmp_path, {"x": noise(7)}, {"x": noise(4)}, by_evaluator=True)
    calls = [{"x": noise(1, 2, 3, 4, 7)}, {"x": noise(2, 1, 2, 5, 4)}]
    check(one(list("nclhw"), scales=[1, 1, 2, 1.5, 0.5], **attributes), tmp_path, *calls, by_evaluator=True)


def test_lengths_are_products_in_fp32(tmp_path: Path) -> None:
    # In fp32 0.7 is less than that, and ten times that is 7.
    model = one(["n", 1, "w"], scales=[1, 1, 0.7], mode="linear")
    found = check(model, tmp_path, {"x": noise(1, 1, 10)}, {"x": noise(1, 1, 20)})
    assert [each["y"].shape[-1] for each in found] == [7, 14]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("coordinates", [*COORDINATES, "tf_crop_and_resize"])
def test_what_was_resized_is_resized_again(mode: str, coordinates: str, tmp_path: Path) -> None:
    """Sizes that follow from those of what was gathered."""
    roi = {"roi": "roi"} if coordinates == "tf_crop_and_resize" else {}
    attributes: Any = {"mode": mode, "coordinate_transformation_mode": coordinates, "axes": [2, 3]}
    nodes = [
        resize("x", "a", {**roi, "scales": "larger"}, **attributes),
        helper.make_node("Relu", ["a"], ["b"]),
        resize("b", "c", {**roi, "sizes": "s"}, **attributes),
        resize("c", "d", {**roi, "sizes": "fixed"}, keep_aspect_ratio_policy="not_smaller", **attributes),
        resize("d", "y", {**roi, "scales": "smaller"}, **attributes),
    ]
    constants = {
        "larger": np.array([2, 3], np.float32),
        "smaller": np.array([0.6, 1.25], np.float32),
        "fixed": np.array([5, 8]),
        **{name: np.array([-0.25, 0.1, 1.3, 0.9], np.float32) for name in roi},
    }
    model = model_of(nodes, [("x", FLOAT, FREE), ("s", INT64, [2])], [("y", FLOAT, FREE4)], **constants)
    calls = [{"x": x, "s": np.array(s)} for x, s in zip(images(), ([5, 11], [3, 4]), strict=False)]
    check(model, tmp_path, *calls)


@pytest.mark.parametrize("mode", MODES)
def test_images_take_the_size_of_others(mode: str, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["own"], start=0, end=2),
        helper.make_node("Shape", ["z"], ["other"], start=2),
        helper.make_node("Concat", ["own", "other"], ["sizes"], axis=0),
        resize("x", "r", {"sizes": "sizes"}, mode=mode),
        helper.make_node("Add", ["r", "z"], ["y"]),
    ]
    inputs: Any = [("x", FLOAT, FREE), ("z", FLOAT, ["n", 2, "H", "W"])]
    calls = [{"x": noise(1, 2, 4, 6), "z": noise(1, 2, 8, 11)}, {"x": noise(2, 2, 7, 5), "z": noise(2, 2, 3, 5)}]
    check(model_of(nodes, inputs, [("y", FLOAT, FREE4)]), tmp_path, *calls)


def test_whole_numbers_and_what_is_no_number_are_picked(tmp_path: Path) -> None:
    node = resize("x", "y", {"scales": "s"}, coordinate_transformation_mode="align_corners")
    scales = np.array([1, 1, 2, 3], np.float32)
    model = model_of([node], [("x", INT64, FREE)], [("y", INT64, FREE4)], s=scales)
    calls = [{"x": np.arange(48).reshape(1, 2, 4, 6)}, {"x": np.zeros((2, 2, 3, 2), np.int64)}]
    check(model, tmp_path, *calls, by_evaluator=True)
    model = one(FREE, scales=scales, coordinate_transformation_mode="align_corners")
    check(model, tmp_path, {"x": np.full((1, 2, 4, 6), np.nan, np.float32)})


@pytest.mark.parametrize("mode", MODES)
def test_images_are_resized_in_half_precision(mode: str, tmp_path: Path) -> None:
    # Places up to 1500, which fp16 would round to whole numbers and halves.
    model = one([1, 1, "h", "w"], scales=[1, 1, 1, 1.25], mode=mode, antialias=int(mode == "cubic"))
    x = np.sin(np.arange(1501, dtype=np.float32) / 9).reshape(1, 1, 1, -1)
    options = LowerOptions(precision=Precision.FP16)
    check(model, tmp_path, {"x": x}, options=options, atol=4e-3, by_evaluator=True)


def test_unknown_words_are_refused(tmp_path: Path) -> None:
    for name, word in (
        ("mode", "lanczos"),
        ("coordinate_transformation_mode", "half"),
        ("nearest_mode", "up"),
        ("keep_aspect_ratio_policy", "both"),
    ):
        attributes: Any = {name: word}
        # The last one is refused by ONNX's own inference of shapes, before Triune's conversion looks at it.
        error = InvalidArgumentError if word == "both" else UnsupportedError
        with pytest.raises(error, match=f"{name}`?:? '?{word}"):
            lower(one(FREE, axes=[2, 3], sizes=[7, 9], **attributes), tmp_path / "m.aimodel")


def test_whole_numbers_are_not_interpolated(tmp_path: Path) -> None:
    node = resize("x", "y", {"scales": "s"}, mode="linear")
    model = model_of([node], [("x", INT64, FREE)], [("y", INT64, FREE4)], s=np.array([1, 1, 2, 3], np.float32))
    with pytest.raises(UnsupportedError, match="cast them to FLOAT"):
        lower(model, tmp_path / "m.aimodel")
