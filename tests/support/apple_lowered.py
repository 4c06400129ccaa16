"""Small ONNX graphs converted to Core AI, and computed by Apple's interpreter and by ONNX Runtime."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import ModelProto

from support.apple_interpreter import Apart, interpret_apart
from triune.coreai.lowering import LowerOptions, lower
from triune.graph.passes.narrow_values import narrow_array

Arrays = Mapping[str, Any]


_APART = Apart(interpret_apart)


def check(
    model: ModelProto,
    feeds: Arrays,
    folder: Path,
    options: LowerOptions | None = None,
    *,
    atol: float = 1e-5,
    rtol: float = 1e-4,
) -> dict[str, Any]:
    """Convert a model, compute it with Apple's interpreter and with ONNX Runtime, and compare. Returns the outputs."""
    lowered = lower(model, folder / "m.aimodel", options)
    return compare(model, lowered.path, feeds, atol=atol, rtol=rtol)


def compare(model: ModelProto, path: Path, feeds: Arrays, *, atol: float = 1e-5, rtol: float = 1e-4) -> dict[str, Any]:
    """Compare like `check`, for a program that was already converted from the model."""
    options = ort.SessionOptions()
    # Otherwise ONNX Runtime would compute products of quantized weights with quantized operands.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    expected = session.run(None, dict(feeds))
    results = _APART((path, {name: narrow_array(name, array) for name, array in feeds.items()}))
    for value, right in zip(model.graph.output, expected, strict=True):
        assert results[value.name].shape == right.shape
        np.testing.assert_allclose(results[value.name], right, atol=atol, rtol=rtol)
    return results
