"""Which framework a model is of, and what is said where its exporter is not installed."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

import triune
from triune.api.frameworks import framework_of
from triune.api.frameworks.frameworks import (
    JAX,
    KERAS,
    LIGHTGBM,
    PYTORCH,
    SAVED_MODEL,
    SKLEARN,
    TFLITE,
    XGBOOST,
    Framework,
)
from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError

ALL = (PYTORCH, KERAS, SAVED_MODEL, TFLITE, JAX, SKLEARN, XGBOOST, LIGHTGBM)


@pytest.mark.parametrize(
    ("name", "framework"),
    [
        ("m.pt2", PYTORCH),
        ("m.keras", KERAS),
        ("m.tflite", TFLITE),
        ("m.skops", SKLEARN),
        ("m.ubj", XGBOOST),
        ("m.json", XGBOOST),
        ("m.txt", LIGHTGBM),
        ("m.onnx", None),
        ("m.mlpackage", None),
        ("folder", None),
    ],
)
def test_files_are_known_by_their_suffixes(name: str, framework: Framework | None) -> None:
    assert framework_of(name) is framework
    assert framework_of(Path(name)) is framework


def test_a_saved_model_is_a_folder(tmp_path: Path) -> None:
    assert framework_of(tmp_path) is None
    (tmp_path / "saved_model.pb").touch()
    assert framework_of(tmp_path) is SAVED_MODEL


def made(module: str, *bases: type) -> Any:
    """An object of a class that a module of a framework might define."""
    return type("Model", bases, {"__module__": module})()


def test_objects_are_known_by_their_classes() -> None:
    base = type("Base", (), {"__module__": "sklearn.base"})
    module = type("Module", (), {"__module__": "torch.nn.modules.module"})
    assert framework_of(made("__main__", module)) is PYTORCH
    assert framework_of(made("torch.export.exported_program")) is PYTORCH
    assert framework_of(made("keras.src.models", module)) is KERAS
    assert framework_of(made("sklearn.pipeline", base)) is SKLEARN
    assert framework_of(made("xgboost.sklearn", base)) is XGBOOST
    assert framework_of(made("lightgbm.basic")) is LIGHTGBM
    assert framework_of(lambda x: x) is JAX


def test_other_objects_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="a model is a path, a function of JAX, .*; int is none of them"):
        triune.convert(3, "m.onnx")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("m.pt", "torch.export.save as .pt2"),
        ("m.pth", "torch.export.save as .pt2"),
        ("m.joblib", "save it as .skops, .ubj or .txt"),
        ("m.pkl", "save it as .skops, .ubj or .txt"),
        ("m.h5", "keras.Model.save as .keras"),
    ],
)
def test_pickles_are_not_read(name: str, remedy: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        triune.convert(name, "m.onnx")
    assert "may run any code when it is loaded" in f"{refused.value}"
    assert remedy in f"{refused.value}"


@pytest.mark.parametrize("framework", ALL, ids=[each.title for each in ALL])
def test_a_missing_extra_is_named(framework: Framework, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedError) as refused:
        framework.exporter()
    assert f"models of {framework.title} need {framework.modules[0]}" in f"{refused.value}"
    assert f"pip install 'triune[{framework.extra}]'" in f"{refused.value}"


def test_extras_are_those_of_the_project() -> None:
    text = (Path(__file__).parents[4] / "pyproject.toml").read_text()
    for framework in ALL:
        assert f"\n{framework.extra} = [" in text


def test_a_missing_file_is_told_before_a_missing_extra() -> None:
    with pytest.raises(NotFoundError, match="there is no 'none.pt2'"):
        triune.convert("none.pt2", "m.onnx")
