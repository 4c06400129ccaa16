"""Core AI models that predict: raised, and in Apple's interpreter."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from PIL import Image

from support.apple_interpreter import described
from support.coreai_programs import image_type, ops, save_graph
from support.lowered import FLOAT, model_of, plain_answers
from triune import coreai
from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from triune.core.units import Unit
from triune.coreai import model as coreai_model
from triune.coreai.lowering import LowerOptions, lower
from triune.graph.conversion.shapes import InputShape, Range

X = np.arange(8, dtype=np.float32).reshape(2, 4)


def _save(path: Path, shape: InputShape | None = None) -> Path:
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    model = model_of(nodes, [("x", FLOAT, ["rows", 4])], [("y", FLOAT, ["rows", 4])])
    return lower(model, path, LowerOptions(shapes={} if shape is None else {"x": shape})).path


def _save_counter(path: Path) -> Path:
    nodes = [helper.make_node("Add", ["past", "x"], ["next"]), helper.make_node("Neg", ["next"], ["y"])]
    values = [(name, FLOAT, [1, 4]) for name in ("past", "x", "next", "y")]
    return lower(model_of(nodes, values[:2], values[2:]), path, LowerOptions(states={"past": "next"})).path


@pytest.fixture(autouse=True)
def describes_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of its own takes as long to import Apple's library as these tests take."""
    monkeypatch.setattr(coreai_model, "describe", described)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A model that doubles its input, for tests that give it nothing to compute."""
    with coreai.load(_save(tmp_path_factory.mktemp("loaded") / "m.aimodel")) as model:
        yield model


@pytest.fixture(params=["onnxruntime", "interpreter"])
def executor(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_both_executors_compute_the_same(executor: Any, tmp_path: Path) -> None:
    with coreai.load(_save(tmp_path / "m.aimodel"), executor=executor) as model:
        assert (model.function, model.executor) == ("main", executor)
        np.testing.assert_array_equal(model.predict({"x": X})["y"], 2 * X)
        np.testing.assert_array_equal(model.predict({"x": X[:1].tolist()})["y"], 2 * X[:1])
        assert [each["y"].shape for each in model.predict_batch([{"x": X}, {"x": X[:1]}])] == [(2, 4), (1, 4)]


def test_states_are_kept_where_they_are_given(executor: Any, tmp_path: Path) -> None:
    with coreai.load(_save_counter(tmp_path / "m.aimodel"), executor=executor) as model:
        state = model.make_state()
        assert state.names == ("past",)
        for count in (1, 2):
            np.testing.assert_array_equal(model.predict({"x": np.ones((1, 4))}, state)["y"], np.full((1, 4), -count))
        np.testing.assert_array_equal(state.read("past"), np.full((1, 4), 2))
        state.write("past", np.zeros((1, 4)))
        np.testing.assert_array_equal(model.predict({"x": np.ones((1, 4))}, state)["y"], -np.ones((1, 4)))
        with pytest.raises(InvalidArgumentError, match=r"\[2,4\]; it must be \[1,4\]"):
            state.write("past", X)
        with pytest.raises(NotFoundError, match="'past'"):
            state.read("future")
        with pytest.raises(InvalidArgumentError, match="make_state"):
            model.predict({"x": np.ones((1, 4))})


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ({}, r"input 'x'.*is missing; it is x: FP32\[-1,4\]"),
        ({"x": X, "z": X}, "no input 'z'"),
        ({"x": X[0]}, r"\[4\]; it must be \[-1,4\]"),
        ({"x": X[:, :3]}, r"\[2,3\]; it must be \[-1,4\]"),
        ({"x": X[:0]}, "is empty"),
        ({"x": X.astype(np.int32)}, "int32; it must be of FP32"),
        ({"x": [[1, 2], [3]]}, "is not an array"),
        ({"x": np.full((2, 4), 1e300)}, r"fp32 cannot hold: up to 1e\+300"),
    ],
)
def test_wrong_inputs_never_reach_apples_library(loaded: Any, inputs: Any, told: str) -> None:
    with pytest.raises(InvalidArgumentError, match=told):
        loaded.predict(inputs)


def test_infinity_is_a_number_of_fp32(tmp_path: Path) -> None:
    with coreai.load(_save(tmp_path / "m.aimodel")) as model:
        assert np.isinf(model.predict({"x": np.full((2, 4), np.inf, np.float64)})["y"]).all()


def test_limits_of_the_conversion_are_enforced(tmp_path: Path) -> None:
    path = _save(tmp_path / "m.aimodel", InputShape(((Range(1, 2), 4),)))
    with coreai.load(path) as model:
        assert model.predict({"x": X})["y"].shape == (2, 4)
        with pytest.raises(InvalidArgumentError, match=r"\[3,4\]; it must be \[1..2,4\]"):
            model.predict({"x": np.ones((3, 4))})


def test_a_ladder_of_shapes_is_one_model(tmp_path: Path) -> None:
    path = _save(tmp_path / "m.aimodel", InputShape(((1, 4), (2, 4))))
    with coreai.load(path) as model:
        assert model.function == "main"
        assert [[str(spec) for spec in each] for each in (model.signature.inputs, model.signature.outputs)] == [
            ["x: FP32[-1,4]"],
            ["y: FP32[-1,4]"],
        ]
        for rows in (1, 2):
            np.testing.assert_array_equal(model.predict({"x": X[:rows]})["y"], 2 * X[:rows])
        with pytest.raises(InvalidArgumentError, match=r"\[1,4\].*\[2,4\]"):
            model.predict({"x": np.ones((3, 4))})
    with coreai.load(path, function="main_of_2x4") as model, pytest.raises(InvalidArgumentError):
        model.predict({"x": X[:1]})


@pytest.mark.parametrize("name", ["lstm", "places"])
def test_a_ladder_of_what_needs_fixed_sizes_is_converted_for_each(name: str, tmp_path: Path) -> None:
    """Core AI's library does not fix the sizes of loops; a convolution's output_shape needs the image's size."""
    rng = np.random.default_rng(0)
    weights = {
        "lstm": {"w": rng.standard_normal((1, 16, 3)), "r": rng.standard_normal((1, 16, 4))},
        "places": {"w": rng.standard_normal((3, 2, 4))},
    }[name]
    node = {
        "lstm": helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=4),
        "places": helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2], output_shape=[11]),
    }[name]
    constants = {key: each.astype(np.float32) for key, each in weights.items()}
    shape = ["t", "b", 3] if name == "lstm" else ["b", 3, "t"]
    model = model_of([node], [("x", FLOAT, shape)], [("y", FLOAT, None)], **constants)
    shapes = ((2, 1, 3), (5, 3, 3)) if name == "lstm" else ((1, 3, 5), (2, 3, 6))
    lowered = lower(model, tmp_path / "m.aimodel", LowerOptions(shapes={"x": InputShape(shapes)}))
    assert len(lowered.functions) == 2
    with coreai.load(lowered.path) as found:
        assert found.function == "main"
        for each in shapes:
            x = rng.standard_normal(each).astype(np.float32)
            np.testing.assert_allclose(found.predict({"x": x})["y"], plain_answers(model, {"x": x})[0], atol=1e-5)
        with pytest.raises(InvalidArgumentError):
            found.predict({"x": np.ones((7, 3, 3), np.float32)})


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    path = _save(tmp_path / "m.aimodel")
    with pytest.raises(NotFoundError, match="no function 'other'; it has 'main'"):
        coreai.load(path, function="other")
    with pytest.raises(NotFoundError):
        coreai.load(tmp_path / "none.aimodel")
    with pytest.raises(InvalidArgumentError, match="leave unit out"):
        coreai.load(path, executor="onnxruntime", unit=Unit.ANE)
    with pytest.raises(UnsupportedError, match="macOS 27"):
        coreai.load(path, executor="coreai")


def test_pictures_and_their_bytes(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "m.aimodel", ["x"], lambda: [image_type("ARGB32", 2, 3)], ops.image_to_tensor)
    bytes_of = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    with coreai.load(path, executor="onnxruntime") as model:
        picture = Image.fromarray(bytes_of[..., [1, 2, 3, 0]])
        for each in (bytes_of, picture):
            np.testing.assert_array_equal(model.predict({"x": each})["y0"], bytes_of)
        with pytest.raises(InvalidArgumentError, match="input 'x' is a picture of 4x3"):
            model.predict({"x": picture.resize((4, 3))})
        with pytest.raises(InvalidArgumentError, match=r"input 'x' is of shape \[2,3,3\]; it must be \[2,3,4\]"):
            model.predict({"x": bytes_of[..., :3]})


async def test_predicting_does_not_hold_the_loop(tmp_path: Path) -> None:
    with coreai.load(_save(tmp_path / "m.aimodel")) as model:
        np.testing.assert_array_equal((await model.predict_async({"x": X}))["y"], 2 * X)
