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


CHOICES = """g (float[2] x) => (float[2] y) <float low = {0}, float high = {1}, float three = {3}> {
    a = Mul (x, three) b = Neg (x) m = MAX (a, b) y = Clip (m, low, high) }"""


@pytest.mark.parametrize(
    ("op", "x", "left"),
    [
        ("Max", [0.1, 0.2], [("m", "Max", False)]),
        ("Max", [-0.1, -0.2], [("m", "Max", True)]),
        ("Max", [-0.1, 0.2], []),
        ("Max", [4, 8], [("m", "Max", False), ("y", "Clip", True)]),
        ("Min", [-0.1, -8], [("m", "Min", False), ("y", "Clip", True)]),
    ],
)
def test_operands_that_no_result_is(op: str, x: list[float], left: list[tuple[str, str, bool]]) -> None:
    gates = Gates(model_of(CHOICES.replace("MAX", op)))
    inputs = {"x": np.array(x, np.float32)}
    names = [value.name for value in gates.model.graph.output]
    kept = gates.learn(inputs, dict(zip(names, answers(gates.model, inputs), strict=True)))
    assert list(kept) == ["y"]
    assert list(gates.untaken()) == [Untaken(*each) for each in left]


def test_they_are_called_by_their_place() -> None:
    told = described([Untaken("m", "Max", False), Untaken("y", "Clip", True)])
    assert told == "the second side of Max 'm', the numbers between the limits of Clip 'y'"
