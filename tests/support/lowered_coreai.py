"""Small ONNX graphs converted to Core AI, and computed by Apple's interpreter and by ONNX Runtime."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import ModelProto
from onnx.reference import ReferenceEvaluator

from support.apple_interpreter import Apart, interpret_apart
from triune.coreai.lowering import LowerOptions, lower
from triune.graph.passes.narrow_values import narrow_array

_apart = Apart(interpret_apart)


def check(
    model: ModelProto,
    folder: Path,
    *calls: Mapping[str, Any],
    options: LowerOptions | None = None,
    atol: float = 1e-5,
    by_evaluator: bool = False,
) -> list[dict[str, Any]]:
    """Convert a model, call it with the inputs of each of `calls`, and compare with ONNX Runtime. Returns the outputs.

    With `by_evaluator` the outputs are compared with ONNX's reference evaluator, for operators that ONNX Runtime
    computes differently.
    """
    lowered = lower(model, folder / "m.aimodel", options)
    session: Any = (
        ReferenceEvaluator(model)
        if by_evaluator
        else ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    )
    given = [{name: narrow_array(name, np.asarray(array)) for name, array in inputs.items()} for inputs in calls]
    found = [_apart((lowered.path, inputs)) for inputs in given]
    for inputs, results in zip(calls, found, strict=True):
        expected = session.run(None, dict(inputs))
        for value, right in zip(model.graph.output, expected, strict=True):
            actual = results[value.name]
            assert actual.shape == right.shape
            np.testing.assert_allclose(actual, right, atol=atol, rtol=1e-4)
    return found
