import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contract.coreml.conftest import EXECUTORS
from support.mil_models import (
    ct,
    save_accumulator,
    save_affine,
    save_classifier,
    save_flexible,
    save_functions,
    save_image_model,
)
from triune import coreml
from triune.core.errors import InvalidArgumentError, NotFoundError
from triune.coreml.model import ExecutorName

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(params=EXECUTORS)
def executor(request: pytest.FixtureRequest) -> ExecutorName:
    return request.param


def test_predicts_alone_in_batches_and_asynchronously(tmp_path: Path, executor: ExecutorName) -> None:
    model = coreml.load(save_affine(tmp_path), executor=executor)
    np.testing.assert_allclose(model.predict({"x": X})["y"], 2 * X + 1)
    for answer, x in zip(model.predict_batch([{"x": X}, {"x": -X}]), (X, -X), strict=True):
        np.testing.assert_allclose(answer["y"], 2 * x + 1)

    async def several() -> list[dict[str, coreml.model.Array]]:
        return await asyncio.gather(*(model.predict_async({"x": X + at}) for at in range(4)))

    for at, answer in enumerate(asyncio.run(several())):
        np.testing.assert_allclose(answer["y"], 2 * (X + at) + 1)


def test_fp16_programs_compute_in_fp16(tmp_path: Path, executor: ExecutorName) -> None:
    model = coreml.load(save_affine(tmp_path, factor=2049.0, precision="FLOAT16"), executor=executor)
    # fp16 has no 2049, and none of the odd numbers from there on.
    np.testing.assert_array_equal(model.predict({"x": np.full((2, 3), 1)})["y"], np.full((2, 3), 2048))
    assert np.isinf(model.predict({"x": np.full((2, 3), 100)})["y"]).all()


def test_states_remain_between_calls(tmp_path: Path, executor: ExecutorName) -> None:
    model = coreml.load(save_accumulator(tmp_path), executor=executor)
    state, other = model.make_state(), model.make_state()
    for expected in ([[1, 2]], [[2, 4]], [[3, 6]]):
        np.testing.assert_array_equal(model.predict({"x": [[1, 2]]}, state)["y"], expected)
    np.testing.assert_array_equal(state.read("total"), [[3, 6]])
    np.testing.assert_array_equal(other.read("total"), [[0, 0]])
    state.write("total", np.array([[10, 20]]))
    np.testing.assert_array_equal(model.predict({"x": [[1, 2]]}, state)["y"], [[11, 22]])
    # What was read is a copy.
    state.read("total")[:] = 0
    np.testing.assert_array_equal(state.read("total"), [[11, 22]])
    with pytest.raises(InvalidArgumentError, match=r"states \['total'\]: give state=model.make_state\(\)"):
        model.predict({"x": [[1, 2]]})


def test_calls_on_one_state_wait_for_each_other(tmp_path: Path, executor: ExecutorName) -> None:
    model = coreml.load(save_accumulator(tmp_path), executor=executor)
    state = model.make_state()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: model.predict({"x": [[1, 2]]}, state), range(40)))
    np.testing.assert_array_equal(state.read("total"), [[40, 80]])


def test_a_classifier_names_the_class_and_all_probabilities(tmp_path: Path, executor: ExecutorName) -> None:
    model = coreml.load(save_classifier(tmp_path), executor=executor)
    answer = model.predict({"x": [[1, 3, 2]]})
    assert answer["classLabel"] == "bee"
    weights = np.exp([1, 3, 2])
    expected = dict(zip(["ant", "bee", "cat"], weights / weights.sum(), strict=True))
    assert answer["classLabel_probs"] == pytest.approx(expected)
    assert list(answer["classLabel_probs"]) == ["ant", "bee", "cat"]
    numbered = coreml.load(save_classifier(tmp_path, [30, 10, 20]), executor=executor).predict({"x": [[1, 3, 2]]})
    assert numbered["classLabel"] == 10
    assert list(numbered["classLabel_probs"]) == [30, 10, 20]


def test_functions_by_name(tmp_path: Path, executor: ExecutorName) -> None:
    path = save_functions(tmp_path)
    for name, factor in ((None, 2), ("twice", 2), ("thrice", 3)):
        model = coreml.load(path, function=name, executor=executor)
        assert model.function == (name or "twice")
        np.testing.assert_allclose(model.predict({"x": X})["y"], factor * X + 1)
    with pytest.raises(NotFoundError, match=r"no function 'fourfold'; it has \['thrice', 'twice'\]"):
        coreml.load(path, function="fourfold", executor=executor)


@pytest.mark.parametrize("layout", ["RGB", "BGR", "GRAYSCALE"])
def test_images_in_and_out(tmp_path: Path, executor: ExecutorName, layout: str) -> None:
    model = coreml.load(save_image_model(tmp_path, layout), executor=executor)
    shape = (4, 5) if layout == "GRAYSCALE" else (4, 5, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    for image in (pixels, Image.fromarray(pixels)):
        answer = model.predict({"x": image})["y"]
        assert answer.dtype == np.uint8
        np.testing.assert_array_equal(answer, 255 - pixels)


def test_shapes_in_a_range(tmp_path: Path, executor: ExecutorName) -> None:
    model = coreml.load(save_flexible(tmp_path, ct.RangeDim(1, 4)), executor=executor)
    for size in (1, 4):
        assert model.predict({"x": np.zeros((size, 3))})["y"].shape == (size, 3)
    for shape in ((5, 3), (0, 3), (2, 2), (3,)):
        with pytest.raises(InvalidArgumentError, match=r"it must have \[1\.\.4, 3\]"):
            model.predict({"x": np.zeros(shape)})


def test_shapes_of_a_list(tmp_path: Path, executor: ExecutorName) -> None:
    model = coreml.load(save_flexible(tmp_path, ct.EnumeratedShapes([(1, 3), (4, 3)])), executor=executor)
    for size in (1, 4):
        assert model.predict({"x": np.zeros((size, 3))})["y"].shape == (size, 3)
    with pytest.raises(InvalidArgumentError, match=r"one of \[1, 3\], \[4, 3\]"):
        model.predict({"x": np.zeros((2, 3))})
