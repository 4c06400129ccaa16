"""Options of images: what is written, and floats and bytes by them."""

import numpy as np
import pytest

from triune.core.errors import InvalidArgumentError
from triune.coreai.images import Image, PixelFormat
from triune.coreai.lowering.image_options import ImageOptions, parse_images


def test_what_is_written() -> None:
    assert parse_images({"x": "rgb24", "y": "bgra32,scale=0.5,bias=-1|2|3.5"}) == {
        "x": ImageOptions(PixelFormat.RGB24),
        "y": ImageOptions(PixelFormat.BGRA32, 0.5, (-1, 2, 3.5)),
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no format ''; there are rgb24, argb32, bgra32"),
        ("k24RGB", "no format 'k24RGB'"),
        ("ycbcr420", "no format 'ycbcr420'"),
        ("rgb24,gain=2", "'gain=2' is unknown"),
        ("rgb24,scale=2,scale=2", "given twice"),
        ("rgb24,scale=two", r"'scale=two' must have 1 number"),
        ("rgb24,scale=nan", r"'scale=nan' must have 1 number"),
        ("rgb24,scale", r"'scale' must have 1 number"),
        ("rgb24,scale=0", "scale is 0"),
        ("rgb24,bias=1", r"'bias=1' must have 3 number"),
    ],
)
def test_what_cannot_be_read(text: str, told: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"--image 'x'.*{told}"):
        parse_images({"x": text})


@pytest.mark.parametrize(
    ("pixels", "order"),
    [(PixelFormat.RGB24, [0, 1, 2]), (PixelFormat.ARGB32, [1, 2, 3]), (PixelFormat.BGRA32, [2, 1, 0])],
)
def test_bytes_are_floats_and_back(pixels: PixelFormat, order: list[int]) -> None:
    options = ImageOptions(pixels, 0.5, (1, 2, 3))
    data = np.random.default_rng(0).integers(0, 256, Image(pixels, 2, 5).shape, np.uint8)
    if pixels is not PixelFormat.RGB24:
        data[..., 0 if pixels is PixelFormat.ARGB32 else 3] = 255
    floats = options.floats(data)
    assert (floats.dtype, floats.shape) == (np.float32, (1, 3, 2, 5))
    for channel, place in enumerate(order):
        np.testing.assert_array_equal(floats[0, channel], data[..., place] * 0.5 + channel + 1)
    np.testing.assert_array_equal(options.nearest("x", floats + 0.2), data)


@pytest.mark.parametrize("value", [-1, 256, np.nan])
def test_floats_that_are_no_picture(value: float) -> None:
    with pytest.raises(InvalidArgumentError, match="'x' is to be an image, and the values given for it are not bytes"):
        ImageOptions(PixelFormat.RGB24).nearest("x", np.full((1, 3, 1, 1), value))


@pytest.mark.parametrize("shape", [(3, 2, 5), (2, 3, 2, 5), (1, 1, 2, 5), (1, 3, None, 5), (1, 3, 2, 0)])
def test_shapes_that_are_no_picture(shape: tuple[int | None, ...]) -> None:
    assert ImageOptions(PixelFormat.RGB24).image((1, 3, 2, 5)) == Image(PixelFormat.RGB24, 2, 5)
    assert ImageOptions(PixelFormat.RGB24).image(shape) is None
