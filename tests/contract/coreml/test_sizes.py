"""The cases again, with sizes that are only known when the program runs: the answers stay the same."""

import numpy as np
import pytest

from contract.coreml import elementwise, layers, shapes, weights
from contract.coreml.cases import Case
from support.mil_programs import make_package
from triune.coreml.interpreter import Interpreter
from triune.coreml.onnx_executor import OnnxExecutor

# Their inputs have one element because that is what they are: a scalar, which Core ML has no inputs of.
SCALARS = ("a loop", "a loop that ends at once")
CASES = [
    case
    for case in (*elementwise.CASES, *shapes.CASES, *layers.CASES, *weights.CASES)
    if case.inputs and case.name not in SCALARS
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_unknown_sizes(case: Case) -> None:
    known = make_package(case.build, case.inputs, case.target)
    try:
        unknown = make_package(case.build, case.inputs, case.target, is_dynamic=True)
    except (ValueError, TypeError, AssertionError) as error:
        pytest.skip(f"coremltools does not build it: {error}")
    expected, _ = Interpreter(known).run(case.inputs, {})
    outputs, _ = OnnxExecutor(unknown, num_threads=1).run(case.inputs, {})
    names = zip(known.function().block.outputs, unknown.function().block.outputs, strict=True)
    for name, other in names:
        assert outputs[other].shape == expected[name].shape
        np.testing.assert_allclose(outputs[other], expected[name], rtol=case.tolerance, atol=case.tolerance)
