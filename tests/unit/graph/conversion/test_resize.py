"""Where elements of a resized image lie, and what they are made of: as in ONNX Runtime, scales being rounded or not."""

import itertools
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from support.graphs import model_of
from triune.graph.conversion.resize import interpolation_matrix, nearest_indices, resized_axes, source_coordinates

SCALES = (1 / 3, 0.3, 0.5, 0.6, 0.7, 0.9, 1.7, 2.3, 3.0)
COORDINATES = ("half_pixel", "asymmetric", "pytorch_half_pixel")
FOR_NEAREST = "tf_half_pixel_for_nn"


@pytest.mark.parametrize(
    ("coordinates", "rounding"),
    [
        *itertools.product(COORDINATES, ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]),
        # ONNX Runtime takes 7.4999995 up to 8 with round_prefer_ceil, and no exporter writes that.
        *itertools.product([FOR_NEAREST], ["floor", "ceil", "round_prefer_floor"]),
    ],
)
def test_the_nearest_elements_are_those_of_onnx_runtime(coordinates: str, rounding: str) -> None:
    attributes = {"coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
    for scale in SCALES:
        for size in (3, 7, 9, 10):
            expected = _by_onnx_runtime(size, scale, attributes)
            [axis] = resized_axes(attributes, [0], [size], np.array([scale], np.float32), None, None)
            found = np.clip(nearest_indices(attributes, source_coordinates(attributes, axis)), 0, size - 1)
            np.testing.assert_array_equal(found, expected, err_msg=f"{size} elements by {scale}")


@pytest.mark.parametrize("mode", ["linear", "cubic", "nearest"])
@pytest.mark.parametrize(
    "coordinates", [*COORDINATES, FOR_NEAREST, "align_corners", "half_pixel_symmetric", "tf_crop_and_resize"]
)
def test_images_are_resized_as_by_onnx_runtime(coordinates: str, mode: str) -> None:
    attributes = {"coordinate_transformation_mode": coordinates, "mode": mode}
    image = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)
    region = np.array([0.1, -0.1, 0.9, 1.2], np.float32) if coordinates == "tf_crop_and_resize" else None
    # Lengths are floored, of one size or both stay as they are, grow, or shrink to one element.
    for scales in ([1.1, 1.1], [1.5, 1.1], [1.0, 2.3], [2.5, 1.7], [0.6, 0.7], [0.3, 0.2]):
        for antialias in (0, 1) if mode != "nearest" and region is None else (0,):
            words = attributes | {"antialias": antialias}
            found = _resized(image, words, np.array(scales, np.float32), region)
            expected = _image_by_onnx_runtime(image, words, scales, region)
            np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=f"by {scales}, antialias {antialias}")


def _resized(image: Any, attributes: dict[str, Any], scales: Any, region: Any) -> Any:
    for each in resized_axes(attributes, [0, 1], image.shape, scales, None, region):
        places = source_coordinates(attributes, each)
        if attributes["mode"] == "nearest":
            image = np.take(image, np.clip(nearest_indices(attributes, places), 0, each.size - 1), each.axis)
        else:
            weights = interpolation_matrix(attributes, each, places, attributes["mode"])
            image = weights @ image if each.axis == 0 else image @ weights.T
        is_outside = ((places < 0) | (places > each.size - 1)) & (region is not None)
        image = np.where(is_outside[:, None] if each.axis == 0 else is_outside, 0, image)
    return image


def _image_by_onnx_runtime(image: Any, attributes: dict[str, Any], scales: list[float], region: Any) -> Any:
    words = ", ".join(
        f'{name} = "{each}"' if isinstance(each, str) else f"{name} = {each}" for name, each in attributes.items()
    )
    scaled = ", ".join(f"{each:.9g}" for each in np.array(scales, np.float32))
    cut = "" if region is None else f", float[4] r = {{{', '.join(f'{each:.9g}' for each in region)}}}"
    text = f"""agraph (float[{image.shape[0]},{image.shape[1]}] x) => (float[a,b] y) <float[2] s = {{{scaled}}}{cut}>
        {{ y = Resize <{words}> (x, {"r" if cut else ""}, s) }}"""
    session: Any = ort.InferenceSession(model_of(text).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": image})[0]


def _by_onnx_runtime(size: int, scale: float, attributes: dict[str, str]) -> Any:
    words = ", ".join(f'{name} = "{value}"' for name, value in attributes.items())
    text = f"""agraph (float[1,1,1,{size}] x) => (float[a,b,c,d] y) <float[4] s = {{1, 1, 1, {np.float32(scale):.9g}}}>
        {{ y = Resize <mode = "nearest", {words}> (x, , s) }}"""
    session: Any = ort.InferenceSession(model_of(text).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.arange(size, dtype=np.float32).reshape(1, 1, 1, size)})[0].reshape(-1)
