"""Images in Apple's library. It takes them on macOS alone, where this never ran.

Here a small fake stands in for it, which holds the adapter to the package's type hints and to no more.
"""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from support.coreai_programs import image_type, save_graph
from triune.core.datatypes import DataType
from triune.core.errors import InternalError, UnsupportedError
from triune.coreai.executable import AppleExecutable

PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


@dataclass
class _Descriptor:
    pixel_format_type: str
    height: int = 2
    width: int = 3


class _Inverter:
    """A function that takes and gives pictures, as the package's hints say; `size` is that of what it gives."""

    def __init__(self, pixel_format: str, size: tuple[int, int]) -> None:
        self.desc = SimpleNamespace(
            state_names=[],
            input_names=["x"],
            output_names=["y"],
            input_descriptor=lambda _name: _Descriptor(pixel_format),
            output_descriptor=lambda _name: _Descriptor(pixel_format),
        )
        self._size = size

    async def __call__(self, inputs: dict[str, Any], states: dict[str, Any]) -> dict[str, Any]:
        picture = inputs["x"]
        assert isinstance(picture, Image.Image)
        assert states == {}
        return {"y": ImageOps.invert(picture.convert("RGB")).resize(self._size)}


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    def loaded(pixel_format: str, size: tuple[int, int] = (3, 2)) -> AppleExecutable:
        @contextlib.asynccontextmanager
        async def executable(_options: Any) -> AsyncIterator[Any]:
            yield SimpleNamespace(load_function=lambda _name: _Inverter(pixel_format, size))

        asset = SimpleNamespace(load=lambda _path: SimpleNamespace(executable=executable))
        monkeypatch.setattr("coreai.authoring.AIModelAsset", asset)
        monkeypatch.setattr("coreai.runtime.HAS_IMAGE_SUPPORT", True)
        return AppleExecutable(Path("m.aimodel"), "main", None, "fp32")

    return loaded


@pytest.mark.parametrize(("pixel_format", "alpha"), [("k24RGB", None), ("k32ARGB", 0), ("k32BGRA", 3)])
def test_images_are_arrays_here_and_pictures_there(pixel_format: str, alpha: int | None, load: Any) -> None:
    executable = load(pixel_format)
    x = PIXELS[..., :3] if alpha is None else PIXELS
    (spec,) = executable.signature.inputs
    assert (spec.name, spec.datatype, spec.shape) == ("x", DataType.UINT8, x.shape)
    wanted = 255 - x
    if alpha is not None:
        wanted[..., alpha] = 255
    np.testing.assert_array_equal(executable.run({"x": x}, ["y"])["y"], wanted)
    executable.close()


def test_a_picture_of_another_size_than_was_told(load: Any) -> None:
    executable = load("k24RGB", size=(4, 4))
    with pytest.raises(InternalError, match="another image than it tells of: output 'y' is a picture of 4x4"):
        executable.run({"x": PIXELS[..., :3]}, ["y"])
    executable.close()


def test_where_the_library_takes_no_images_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coreai.runtime.HAS_IMAGE_SUPPORT", False)
    path = save_graph(tmp_path / "m.aimodel", ["x"], lambda: [image_type("RGB24", 2, 3)], lambda x: x)
    with pytest.raises(UnsupportedError, match=r"'m\.aimodel' has images \('x'\), and .*executor 'onnxruntime'"):
        AppleExecutable(path, "main", None, "fp32")
