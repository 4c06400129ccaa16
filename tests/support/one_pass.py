"""Runs one pass over a small model, and compares the outputs before and after it in ONNX Runtime."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import ModelProto, checker

from support.graphs import answers, model_of, ops_of
from triune.graph.check import sample_inputs
from triune.graph.passes.infer import Infer
from triune.graph.passes.run import GraphPass
from triune.graph.passes.tidy import Tidy
from triune.graph.weight_files import with_data

OPSET = 20
"""An operator set that ONNX Runtime knows, and in which axes are inputs."""


def passed(
    run: GraphPass,
    text: str | ModelProto,
    *,
    opset: int = OPSET,
    inputs: Mapping[str, Any] | None = None,
    rtol: float = 0,
) -> ModelProto:
    """Return the model after the pass, without unused nodes, after asserting that its outputs are unchanged."""
    model = model_of(text, opset=opset) if isinstance(text, str) else text
    before = Infer()(Tidy()(model))
    copy = ModelProto()
    copy.CopyFrom(before)
    after = with_data(Infer()(Tidy()(run(copy))))
    checker.check_model(after)
    given = inputs or sample_inputs(before)
    for one, other in zip(answers(before, given), answers(after, given), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(other, one, rtol=rtol, atol=rtol)
    assert [each.name for each in after.graph.output] == [each.name for each in before.graph.output]
    return after


def ops_after(run: GraphPass, text: str, **options: Any) -> list[str]:
    """The operators of the model after the pass, in the order of the nodes."""
    return ops_of(passed(run, text, **options))
