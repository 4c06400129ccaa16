import numpy as np
import pytest

from triune.graph.audit import Difference, Finding, InputSet, differences, find_difference

NAN, INF = np.nan, np.inf


def _floats(*values: float):
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (_floats(1, -2), _floats(1.0000001, -2)),
        (_floats(NAN, INF, -INF, 0.0), _floats(NAN, INF, -INF, -0.0)),
        (_floats(0, 1e-9), _floats(1e-9, 0)),
        (np.array([2**31 - 1], np.int32), np.array([2**31 - 1], np.int32)),
        (np.zeros((0, 2)), np.zeros((0, 2))),
        (np.float32(3), np.float32(3)),
    ],
)
def test_equal_answers(before, after):
    assert find_difference(np.asarray(before), np.asarray(after), 1e-5) is None


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (_floats(1, 4), _floats(0, 4), Difference("1", "0", (0,), 0.25)),
        (_floats(1, NAN), _floats(1, 1), Difference("nan", "1", (1,), INF)),
        (_floats(1, INF), _floats(1, 2**100), Difference("inf", "1.2676506e+30", (1,), INF)),
        (_floats(INF), _floats(-INF), Difference("inf", "-inf", (0,), INF)),
        (np.array([2**31 - 1]), np.array([2**31 - 2]), Difference("2147483647", "2147483646", (0,), INF)),
        (_floats(1), _floats(1, 2), Difference("shape [1]", "shape [2]", (), INF)),
        (_floats(1), np.array([1], np.int32), Difference("float32", "int32", (), INF)),
    ],
)  # fmt: skip
def test_different_answers(before, after, expected):
    assert find_difference(before, after, 1e-5) == expected


def test_tiny_answers_of_tiny_inputs_count():
    before, after = _floats(1e-30), _floats(2e-30)

    assert find_difference(before, after, 1e-5) is None
    assert find_difference(before, after, 1e-5, largest_input=1e-30) is not None


def test_a_finding_names_the_pass_the_output_and_the_values():
    before = {"y": _floats(1, 4), "z": _floats(1), "same": _floats(1)}
    inputs = InputSet("noise", {"x": _floats(1)})
    found = list(differences("fuse_all", inputs, before, {"y": _floats(0, 4), "same": _floats(1)}, 1e-5))

    assert [str(each) for each in found] == [
        "fuse_all changes output 'y' at [0] from 1 to 0 (inputs: noise)",
        "fuse_all changes output 'z' from an output to no output (inputs: noise)",
    ]
    assert isinstance(found[0], Finding)


@pytest.mark.parametrize(
    ("inputs", "before", "after", "is_found"),
    [
        # Large numbers may overflow within the program before the step, and then it is no judge of the step.
        (_floats(2e38), _floats(NAN, 1), _floats(INF, 1), False),
        (_floats(100), _floats(INF, 1), _floats(5, 1), False),
        # The step must not bring what was not there, and ordinary numbers do not overflow.
        (_floats(2e38), _floats(1, 1), _floats(NAN, 1), True),
        (_floats(2e38), _floats(1, 2), _floats(INF, 1), True),
        (_floats(0), _floats(-INF, 1), _floats(-40, 1), True),
        # Infinite inputs say what infinities become.
        (_floats(INF, 100), _floats(NAN, 1), _floats(0, 1), True),
    ],
)
def test_numbers_that_overflow_within_a_program_prove_nothing(inputs, before, after, is_found):
    found = list(differences("fuse_all", InputSet("kind", {"x": inputs}), {"y": before}, {"y": after}, 1e-5))

    assert bool(found) is is_found
