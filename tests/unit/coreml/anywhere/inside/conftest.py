"""Models that the checks share, built with coremltools."""

from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types


@pytest.fixture(scope="session")
def layers() -> Any:
    """x (1, 4) in fp16 inside: linear with weights of a file, relu, softmax."""
    weight = np.linspace(-1, 1, 2048 * 4, dtype=np.float32).reshape(2048, 4)

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 4))])
    def program(x):
        return mb.softmax(x=mb.relu(x=mb.linear(x=x, weight=weight, name="product")), axis=-1, name="y")

    return ct.convert(program, convert_to="mlprogram", minimum_deployment_target=ct.target.iOS17)


@pytest.fixture(scope="session")
def package(layers: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "layers.mlpackage"
    layers.save(str(path))
    return path


@pytest.fixture(scope="session")
def counter() -> Any:
    """Adds x to its state `count` (2,) and returns the sum."""

    @mb.program(
        input_specs=[mb.TensorSpec((2,), dtype=types.fp16), mb.StateTensorSpec((2,), dtype=types.fp16)],
        opset_version=ct.target.iOS18,
    )
    def program(x, count):
        total = mb.add(x=mb.read_state(input=count), y=x)
        return mb.coreml_update_state(state=count, value=total, name="y")

    return ct.convert(program, convert_to="mlprogram", minimum_deployment_target=ct.target.iOS18)
