"""Core AI's programs behind a real server, through Triton's clients: images, and mistakes that end Apple's process."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from tritonclient.utils import InferenceServerException

from support.coreai_programs import Sample, save
from support.lowered import FLOAT, model_of
from support.process import Served, serve
from support.repositories import write_model
from support.triton_tensors import tensors
from triune.coreai.images import PixelFormat
from triune.coreai.library import dialect
from triune.coreai.lowering import LowerOptions, lower
from triune.coreai.lowering.image_options import ImageOptions

UNITS = 'parameters { key: "units" value { string_value: "cpu,ane" } }\n'
BY_APPLE = UNITS + 'parameters { key: "coreai.executor" value { string_value: "interpreter" } }\n'


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`brightness`, the mean of an image's colors; `divided`, whose whole numbers `ane` divides."""
    folder = tmp_path_factory.mktemp("repository")
    nodes = [helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=0)]
    brightness = model_of(
        nodes, [("image", FLOAT, [1, 3, 4, 6])], [("mean", FLOAT, [1, 3])], axes=np.array([2, 3], np.int64)
    )
    options = LowerOptions(images={"image": ImageOptions(PixelFormat.BGRA32)})
    lower(brightness, _version(folder, "brightness", UNITS), options)
    # Written by hand: what Triune converts guards its divisors where Apple's interpreter needs it.
    by = np.ones(4, np.int32)
    save(Sample(lambda x, by: [dialect.divide(x, by)], {"x": by, "by": by}), _version(folder, "divided", BY_APPLE))
    with serve(folder) as served:
        yield served


def _version(folder: Path, name: str, config: str) -> Path:
    """Where the asset of version 1 of a model goes."""
    write_model(folder, name, config)
    (folder / name / "1").mkdir(parents=True, exist_ok=True)
    return folder / name / "1" / "model.aimodel"


@pytest.mark.parametrize("unit", ["cpu", "ane"])
def test_images_are_their_bytes(unit: str, client: tuple[Any, Any]) -> None:
    module, asked = client
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 4), np.uint8)
    answer = asked.infer("brightness", tensors(module, {"image": pixels}), parameters={"triune_unit": unit})
    colors = pixels[..., 2::-1].reshape(-1, 3).mean(0)
    np.testing.assert_allclose(answer.as_numpy("mean"), [colors], rtol=1e-5)
    with pytest.raises(InferenceServerException, match=r"Expected \[4,6,4\], got \[4,4,6\]"):
        asked.infer("brightness", tensors(module, {"image": pixels.transpose(0, 2, 1).copy()}))


def test_a_mistake_that_ends_apples_process_costs_its_own_request_alone(client: tuple[Any, Any]) -> None:
    module, asked = client
    x, by = np.array([8, 9, -8, 1 << 20], np.int32), np.array([1, 2, 1, 4], np.int32)

    def divide(by: np.ndarray) -> Any:
        found = asked.infer("divided", tensors(module, {"x": x, "by": by}), parameters={"triune_unit": "ane"})
        return found.as_numpy("y0")

    np.testing.assert_array_equal(divide(by), x // by)
    with pytest.raises(InferenceServerException, match="process .*was killed by SIG"):
        divide(by - 1)
    np.testing.assert_array_equal(divide(by), x // by)
    assert asked.is_server_ready()
