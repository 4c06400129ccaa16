"""The zoo's models brought to core ops and narrow types compute what they did."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto

from support.real_models import NAMES, inputs_of
from triune.core.datatypes import Array
from triune.graph.load import load
from triune.graph.normalize import foreign_ops, normalize
from triune.graph.passes.narrow import Narrow, narrow_array


def run(model: ModelProto, inputs: dict[str, Array]) -> list[Array]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


@pytest.mark.parametrize("name", NAMES)
def test_normalized_and_narrowed_models_compute_the_same(models: Path, name: str) -> None:
    model, inputs = load(models / name / "1" / "model.onnx"), dict(inputs_of(name))
    expected = run(model, inputs)
    normal = normalize(model)
    assert foreign_ops(normal) == []
    for actual, right in zip(run(normal, inputs), expected, strict=True):
        np.testing.assert_allclose(actual, right, rtol=1e-4, atol=2e-5)
    narrow = {key: narrow_array(key, array) for key, array in inputs.items()}
    for actual, right in zip(run(Narrow()(normal), narrow), expected, strict=True):
        np.testing.assert_allclose(actual, right, rtol=1e-4, atol=2e-5)
