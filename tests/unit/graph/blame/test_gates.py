"""Which sides of If and Where the inputs took."""

import numpy as np
import pytest

from support.graphs import answers, model_of
from triune.graph.blame.gates import Gates, Untaken, described

WHERE = "g (float[2] x) => (float[2] y) <float zero = {0}> { c = Greater (x, zero) n = Neg (x) y = Where (c, x, n) }"
IF = """g (bool c, float[2] x) => (float[2] y) { y = If (c) <then_branch = t () => (float[2] u) { u = Relu (x) },
    else_branch = e () => (float[2] v) { v = Neg (x) }> }"""


@pytest.mark.parametrize(("x", "sides"), [([1, 2], [False]), ([-1, -2], [True]), ([1, -2], [])])
def test_sides_of_a_where_that_no_element_took(x: list[float], sides: list[bool]) -> None:
    gates = Gates(model_of(WHERE))
    inputs = {"x": np.array(x, np.float32)}
    names = [value.name for value in gates.model.graph.output]
    kept = gates.learn(inputs, dict(zip(names, answers(gates.model, inputs), strict=True)))
    assert list(kept) == ["y"]
    assert list(gates.untaken()) == [Untaken("y", "Where", side) for side in sides]


def test_an_if_by_an_input_adds_no_output() -> None:
    model = model_of(IF)
    gates = Gates(model)
    assert gates.model is model
    gates.learn({"c": np.array(True)}, {})
    (left,) = gates.untaken()
    assert described([left]) == "the else side of If 'y'"
