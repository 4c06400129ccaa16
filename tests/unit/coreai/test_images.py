"""Images as bytes: their layout, and pictures brought into it."""

from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from support.coreai_programs import add_graph, image_type, ops
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreai.images import Image, PixelFormat, image_of
from triune.coreai.library import authoring, dialect, ir

FORMATS = {
    "RGB24": PixelFormat.RGB24,
    "ARGB32": PixelFormat.ARGB32,
    "BGRA32": PixelFormat.BGRA32,
    "YpCbCr8420Planar": PixelFormat.YCBCR420,
}
COLORS = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize("name", list(FORMATS))
@pytest.mark.parametrize("size", [(4, 6), (5, 7), (1, 1)])
def test_types_are_read_and_have_the_shapes_that_apples_library_infers(name: str, size: tuple[int, int]) -> None:
    inferred: list[Any] = []

    def build(x: Any) -> Any:
        tensor = ops.image_to_tensor(x)
        inferred.append(ir.RankedTensorType(tensor.type))
        return tensor

    module = authoring.Module.create()
    with module:
        kind = image_type(name, *size)
        image = image_of(str(kind))
        add_graph("main", ["x"], [kind], build)
    assert image == Image(FORMATS[name], *size)
    assert image.shape == tuple(inferred[0].shape)
    assert str(inferred[0].element_type) == "ui8"


def test_limits_of_memory_do_not_change_the_type() -> None:
    with authoring.Module.create():
        limits = ir.Attribute.parse("#coreaix.image_constraints<CVPixelBuffer, rowAlignmentsPerPlane: [64]>")
        code = dialect.FourCCAttr.get_enum(enum_value=dialect.FourCC.RGB24)
        kind = dialect.ImageType.get(fourcc_attr=code, height=2, width=3, image_constraints=limits)
        assert "64" in str(kind)
        assert image_of(str(kind)) == Image(PixelFormat.RGB24, 2, 3)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ('!coreai.image<<"L008"> x 4 : i64 x 6 : i64>', "those of k24RGB, k32ARGB"),
        ("!coreai.image<<kUnknown> x 4 : i64 x 6 : i64>", "those of k24RGB, k32ARGB"),
        ("!coreai.image<<k24RGB> x 4>", "whose size is not told"),
        ("!coreai.image<<k24RGB> x 0 : i64 x 6 : i64>", "height 0 and width 6; both must be 1 or more"),
        ("!coreai.image<<k24RGB> x -1 : i64 x -1 : i64>", "height -1"),
    ],
)
def test_other_images_are_refused(word: str, told: str) -> None:
    with pytest.raises(UnsupportedError, match=told):
        image_of(word)


def test_what_is_no_image_is_none() -> None:
    assert image_of("tensor<4xui8>") is None


@pytest.mark.parametrize(
    ("pixels", "channels"),
    [(PixelFormat.RGB24, [0, 1, 2]), (PixelFormat.ARGB32, [3, 0, 1, 2]), (PixelFormat.BGRA32, [2, 1, 0, 3])],
)
def test_pictures_become_the_bytes_of_the_format(pixels: PixelFormat, channels: list[int]) -> None:
    picture = Pillow.fromarray(COLORS[..., : len(channels)])
    image, found = Image(pixels, 2, 3), COLORS[..., channels]
    np.testing.assert_array_equal(image.pixels("x", picture), found)
    assert (image.picture(found).mode, image.picture(found).tobytes()) == (picture.mode, picture.tobytes())


def test_planes_are_no_picture() -> None:
    with pytest.raises(UnsupportedError, match="Pillow has no form for an .*; use the .*executor 'onnxruntime'"):
        Image(PixelFormat.YCBCR420, 2, 3).picture(np.zeros(8, np.uint8))


def test_pictures_without_alpha_are_opaque() -> None:
    found = Image(PixelFormat.BGRA32, 2, 3).pixels("x", Pillow.fromarray(COLORS[..., :3]))
    np.testing.assert_array_equal(found[..., :3], COLORS[..., [2, 1, 0]])
    np.testing.assert_array_equal(found[..., 3], np.full((2, 3), 255))


def test_arrays_are_left_as_they_are() -> None:
    assert Image(PixelFormat.RGB24, 2, 3).pixels("x", COLORS) is COLORS


@pytest.mark.parametrize(
    ("pixels", "picture", "told"),
    [
        (PixelFormat.RGB24, Pillow.new("RGBA", (3, 2)), r"x is a picture of mode 'RGBA'.* takes RGB: .*convert\('RGB'"),
        (PixelFormat.ARGB32, Pillow.new("L", (3, 2)), r"of mode 'L'; an image \(k32ARGB\) of 3x2 takes RGBA or RGB"),
        (PixelFormat.RGB24, Pillow.new("RGB", (2, 3)), r"of 2x3; it must be an image \(k24RGB\) of 3x2: .*resize"),
        (PixelFormat.YCBCR420, Pillow.new("YCbCr", (3, 2)), r"planes Y, Cb and Cr .*uint8 of \[8\]"),
    ],
)
def test_pictures_of_another_mode_or_size_are_refused(pixels: PixelFormat, picture: Any, told: str) -> None:
    with pytest.raises(InvalidArgumentError, match=told):
        Image(pixels, 2, 3).pixels("x", picture)
