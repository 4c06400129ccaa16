"""Programs with images, raised.

Apple's interpreter takes no images on Linux: it judges what is between them, on tensors, and the layout is held to
Apple's words alone.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.apple_interpreter import interpret, raised
from support.coreai_programs import Sample, add_graph, image_type, ops, save, save_graph, tensor_type
from support.raised import computed
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreai.library import authoring, dialect
from triune.coreai.raising import raise_function

SHAPES = {"RGB24": (2, 4, 3), "ARGB32": (2, 4, 4), "BGRA32": (2, 4, 4), "YpCbCr8420Planar": (12,)}


def _pixels(*shape: int) -> Any:
    return np.random.default_rng(5).integers(0, 256, shape, np.uint8)


def _inverted(x: Any) -> Any:
    return ops.sub(ops.constant(np.full(tuple(x.type.shape), 255, np.uint8)), x)


@pytest.mark.parametrize("name", list(SHAPES))
def test_images_are_their_bytes(name: str, tmp_path: Path) -> None:
    def kinds() -> list[Any]:
        return [image_type(name, 2, 4)]

    def build(x: Any) -> Any:
        return ops.tensor_to_image(x.type, _inverted(ops.image_to_tensor(x)))

    x = _pixels(*SHAPES[name])
    model = raised(save_graph(tmp_path / "m.aimodel", ["x"], kinds, build))
    twin = interpret(save(Sample(_inverted, {"x": x}), tmp_path / "twin.aimodel"), {"x": x})
    np.testing.assert_array_equal(computed(model, {"x": x})["y0"], twin["y0"])


def test_an_image_may_go_straight_through(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "m.aimodel", ["x"], lambda: [image_type("RGB24", 2, 4)], lambda x: x)
    x = _pixels(2, 4, 3)
    np.testing.assert_array_equal(computed(raised(path), {"x": x})["y0"], x)


@pytest.mark.parametrize("shape", [[24], [8, 3], [None, None, 3]])
def test_tensors_of_other_shapes_with_the_bytes_of_an_image(shape: list[int | None], tmp_path: Path) -> None:
    path = save_graph(tmp_path / "m.aimodel", ["x"], lambda: [tensor_type(shape, np.uint8)], _to_image)
    x = _pixels(2, 4, 3)
    given = x if None in shape else x.reshape([size or 0 for size in shape])
    np.testing.assert_array_equal(computed(raised(path), {"x": given})["y0"], x)


def test_a_tensor_of_other_bytes_than_the_image_has(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "m.aimodel", ["x"], lambda: [tensor_type([2, 4, 4], np.uint8)], _to_image)
    with pytest.raises(InvalidArgumentError, match=r"shape \[2, 4, 4\] is made an image of 24 bytes, \[2, 4, 3\]"):
        raise_function(path)


def _of_no_known_format() -> Any:
    code = dialect.FourCCAttr.get_raw(raw_value=int.from_bytes(b"L008", "big"))
    return dialect.ImageType.get(fourcc_attr=code, height=2, width=4)


@pytest.mark.parametrize(
    ("kind", "build", "told"),
    [
        (_of_no_known_format, lambda x: ops.image_to_tensor(x), "input 'x' is an image of format .*L008.*k24RGB"),
        (lambda: image_type("RGB24", 0, 4), lambda x: x, "input 'x' is an image of height 0 and width 4"),
    ],
)
def test_images_that_are_not_documented_are_refused(kind: Callable[[], Any], build: Any, told: str) -> None:
    module = authoring.Module.create()
    with module:
        add_graph("main", ["x"], [kind()], build)
    with pytest.raises(UnsupportedError, match=told):
        raise_function(authoring.AIProgram(module))


def _to_image(x: Any) -> Any:
    return ops.tensor_to_image(image_type("RGB24", 2, 4), x)
