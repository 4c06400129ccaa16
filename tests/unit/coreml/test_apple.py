import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.compiled_models import compile_package
from support.mil_models import ct, save_accumulator, save_affine, save_classifier, save_functions, save_image_model
from triune import coreml
from triune.core.errors import InternalError, InvalidArgumentError, UnsupportedError

X = np.ones((2, 3), np.float32)


class StateInstead:
    """coremltools' MLState, with Triune's state inside."""

    def __init__(self, state: coreml.State) -> None:
        self.state = state
        self.read_state = state.read
        self.write_state = state.write


class MLModelInstead:
    """coremltools' MLModel as Core ML behind it answers: fp16 as fp32, images as Pillow's."""

    def __init__(self, path: str, function_name: str | None = None) -> None:
        self.named = function_name
        self.__proxy__ = object()
        self.model = coreml.load(path, function=function_name, executor="reference")

    def make_state(self) -> StateInstead:
        return StateInstead(self.model.make_state())

    def predict(self, data: dict[str, Any], state: StateInstead | None = None) -> dict[str, Any]:
        from PIL import Image

        answer = self.model.predict(data, None if state is None else state.state)
        for name, value in answer.items():
            if getattr(value, "dtype", None) == np.uint8:
                answer[name] = Image.fromarray(value)
            elif getattr(value, "dtype", None) == np.float16:
                answer[name] = value.astype(np.float32)
        return answer


def load(path: Path, model: Any = MLModelInstead, **options: Any) -> coreml.Model:
    """The model, through coremltools' class as it would be on Apple's systems."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ct.models, "CompiledMLModel" if path.suffix == ".mlmodelc" else "MLModel", model)
        return coreml.load(path, executor="coreml", **options)


def fail(*_: Any, **__: Any) -> Any:
    raise RuntimeError("error code: -14")


def test_answers_of_core_ml_come_back_as_ours(tmp_path: Path) -> None:
    np.testing.assert_array_equal(load(save_affine(tmp_path)).predict({"x": X})["y"], 3 * X)
    answer = load(save_classifier(tmp_path)).predict({"x": [[1, 3, 2]]})
    assert answer["classLabel"] == "bee"
    assert answer["classLabel_probs"]["cat"] == pytest.approx(0.24473, abs=1e-4)
    thrice = load(save_functions(tmp_path), function="thrice")
    np.testing.assert_array_equal(thrice.predict({"x": X})["y"], 4 * X)


def test_what_it_compiled_is_loaded_as_it_is(tmp_path: Path) -> None:
    compiled = compile_package(save_affine(tmp_path), tmp_path / "m.mlmodelc")
    np.testing.assert_array_equal(load(compiled).predict({"x": X})["y"], 3 * X)


@pytest.mark.parametrize("layout", ["RGB", "BGR", "GRAYSCALE"])
def test_images_go_as_pillow_s(tmp_path: Path, layout: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    pixels = pixels[:, :, 0] if layout == "GRAYSCALE" else pixels
    answer = load(save_image_model(tmp_path, layout)).predict({"x": pixels})["y"]
    np.testing.assert_array_equal(answer, 255 - pixels)


def test_states_go_there_and_come_back(tmp_path: Path) -> None:
    model = load(save_accumulator(tmp_path))
    state = model.make_state()
    for expected in ([[1, 2]], [[2, 4]]):
        answer = model.predict({"x": [[1, 2]]}, state)["y"]
        np.testing.assert_array_equal(answer, expected)
        assert answer.dtype == state.read("total").dtype == np.float16
    np.testing.assert_array_equal(state.read("total"), [[2, 4]])


def test_refusals_and_failures_are_translated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_affine(tmp_path)
    model = load(path)
    monkeypatch.setattr(MLModelInstead, "predict", fail)
    with pytest.raises(InternalError, match="Core ML failed: error code: -14"):
        model.predict({"x": X})
    with pytest.raises(InvalidArgumentError, match="Core ML refuses '.*': error code: -14"):
        load(path, fail)
    in_memory = dataclasses.replace(model.package, path=None)
    with pytest.raises(UnsupportedError, match="loads packages from disk only"):
        coreml.Model(in_memory, executor="coreml")


@pytest.mark.skipif("sys.platform == 'darwin'")
def test_elsewhere_there_is_no_core_ml(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="part of Apple's systems; use the executor 'onnxruntime'"):
        coreml.load(save_affine(tmp_path), executor="coreml")
