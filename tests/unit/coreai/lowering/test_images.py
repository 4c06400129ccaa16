"""Floats of ONNX models that become images of programs.

Apple's interpreter takes no images on Linux: it judges floats made of bytes and bytes made of floats, on tensors; whole
programs are judged raised.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from support.apple_interpreter import interpret
from support.coreai_programs import Sample, numbers, save
from support.lowered import FLOAT, INT64, model_of
from triune import coreai
from triune.core.errors import InvalidArgumentError
from triune.coreai.description import describe
from triune.coreai.images import Image, PixelFormat
from triune.coreai.lowering import LowerOptions, lower
from triune.coreai.lowering.image_options import ImageOptions, parse_images
from triune.coreai.lowering.images import floats_of, pixels_of
from triune.graph.conversion.options import Precision
from triune.graph.conversion.shapes import InputShape, Range

SHAPE = [1, 3, 2, 5]
OPTIONS = [
    ImageOptions(PixelFormat.RGB24),
    ImageOptions(PixelFormat.ARGB32, 1 / 255),
    ImageOptions(PixelFormat.BGRA32, 2, (-1, 0, 3)),
]


def _bytes(options: ImageOptions) -> Any:
    return np.random.default_rng(1).integers(0, 256, Image(options.format, 2, 5).shape, np.uint8)


@pytest.mark.parametrize("options", OPTIONS)
def test_floats_made_of_bytes_by_apples_interpreter(options: ImageOptions, tmp_path: Path) -> None:
    x = _bytes(options)
    path = save(Sample(lambda x: floats_of(x, options, np.float32), {"x": x}), tmp_path / "m.aimodel")
    np.testing.assert_allclose(interpret(path, {"x": x})["y0"], options.floats(x), rtol=1e-6)


@pytest.mark.parametrize("pixels", [each.format for each in OPTIONS])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_bytes_made_of_floats_by_apples_interpreter(pixels: PixelFormat, dtype: Any, tmp_path: Path) -> None:
    options = ImageOptions(pixels)
    x = numbers(*SHAPE, low=-50, high=300, dtype=dtype)
    x[0, 0, 0, :4] = [0.5, 1.5, -np.inf, np.inf]
    path = save(Sample(lambda x: pixels_of(x, options, 2, 5), {"x": x}), tmp_path / "m.aimodel")
    found = interpret(path, {"x": x})["y0"]
    np.testing.assert_array_equal(found, options.nearest("x", np.clip(np.rint(x), 0, 255)))


def _model(shape: Any = SHAPE, kind: Any = FLOAT) -> Any:
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    return model_of(nodes, [("x", kind, shape)], [("y", kind, shape)])


@pytest.mark.sampled(5)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_a_program_of_images(options: ImageOptions, precision: Precision, tmp_path: Path) -> None:
    images = {"x": options, "y": ImageOptions(options.format)}
    path = lower(_model(), tmp_path / "m.aimodel", LowerOptions(images=images, precision=precision)).path
    (function,) = describe(path).functions
    assert function.inputs[0].image == function.outputs[0].image == Image(options.format, 2, 5)
    x = _bytes(options)
    with coreai.load(path, executor="onnxruntime") as model:
        found = model.predict({"x": x})["y"]
    expected = images["y"].nearest("y", np.clip(np.rint(2 * options.floats(x)), 0, 255))
    np.testing.assert_array_equal(found, expected)


def test_sizes_may_be_fixed_by_the_user(tmp_path: Path) -> None:
    shapes = {"x": InputShape(((1, 3, 2, 5),))}
    options = LowerOptions(images=parse_images({"x": "rgb24"}), shapes=shapes)
    path = lower(_model([1, 3, "height", "width"]), tmp_path / "m.aimodel", options).path
    x = _bytes(OPTIONS[0])
    with coreai.load(path, executor="onnxruntime") as model:
        np.testing.assert_array_equal(model.predict({"x": x})["y"], 2 * OPTIONS[0].floats(x))


@pytest.mark.parametrize(
    ("model", "images", "told"),
    [
        (_model([1, 3, "h", 5]), {"x": "rgb24"}, r"'x' is to be an image, and is float32 of \[1,3,-1,5\].* --shape"),
        (_model([1, 4, 2, 5]), {"y": "rgb24"}, r"'y' is to be an image, and is float32 of \[1,4,2,5\]"),
        (_model(kind=INT64), {"x": "rgb24"}, "'x' is to be an image, and is int32"),
        (_model(), {"z": "rgb24"}, "no 'z' to be an image; inputs and outputs are 'x', 'y'"),
        (_model(), {"y": "rgb24,scale=2"}, "output 'y' is to be an image, with a scale or bias"),
    ],
)
def test_what_is_no_picture_is_refused(model: Any, images: dict[str, str], told: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=told):
        lower(model, tmp_path / "m.aimodel", LowerOptions(images=parse_images(images)))


def test_ranges_and_states_are_no_images(tmp_path: Path) -> None:
    images = parse_images({"x": "rgb24"})
    shapes = {"x": InputShape(((1, 3, Range(1, 2), 5),))}
    for options in (LowerOptions(images=images, shapes=shapes), LowerOptions(images=images, states={"x": "y"})):
        model = _model([1, 3, "h", 5] if options.shapes else SHAPE)
        with pytest.raises(InvalidArgumentError, match="'x' is to be an image, and is (a state, )?float32"):
            lower(model, tmp_path / "m.aimodel", options)
