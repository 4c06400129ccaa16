from collections.abc import Callable

import numpy as np
import pytest

from contract.coreml import elementwise, layers, shapes, weights
from contract.coreml.cases import Case
from support.mil_programs import make_package
from triune.core.executor import Executor
from triune.coreml.interpreter import Interpreter
from triune.coreml.package import Package

CASES = [*elementwise.CASES, *shapes.CASES, *layers.CASES, *weights.CASES]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_answers(case: Case, make_executor: Callable[[Package], Executor]) -> None:
    package = make_package(case.build, case.inputs, case.target)
    outputs, states = make_executor(package).run(case.inputs, {})
    names = package.function().block.outputs
    if case.expected is None:
        reference, _ = Interpreter(package).run(case.inputs, {})
        expected = [reference[name] for name in names]
    else:
        expected = list(case.expected())
    assert not states
    assert len(names) == len(expected)
    for name, answer in zip(names, expected, strict=True):
        assert outputs[name].shape == np.shape(answer)
        np.testing.assert_allclose(outputs[name], answer, rtol=case.tolerance, atol=case.tolerance)
