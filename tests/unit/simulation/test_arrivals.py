"""Random requests: the seed decides them, and nothing else."""

import numpy as np
import pytest

from triune.core.errors import InvalidArgumentError
from triune.simulation.arrivals import Stream, parse_stream, synthetic


def test_streams_are_read() -> None:
    assert parse_stream("minilm=poisson:200") == Stream("minilm", 200.0, 1)
    assert parse_stream("a=b=poisson:.5:8") == Stream("a=b", 0.5, 8)


@pytest.mark.parametrize("text", ["m", "m=200", "m=poisson:", "m=poisson:0", "m=poisson:-1", "m=poisson:2:0", "=x:1"])
def test_other_streams_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"cannot be read; write MODEL=poisson:RATE"):
        parse_stream(text)


def test_the_seed_decides() -> None:
    a, b = Stream("a", 300.0), Stream("b", 50.0, 4)
    found = synthetic([a, b], 4.0, seed=1)
    assert found == synthetic([b, a], 4.0, seed=1)
    assert found != synthetic([a, b], 4.0, seed=2)
    assert [each for each in found if each.model == "a"] == synthetic([a], 4.0, seed=1)
    assert [each.at_ns for each in found] == sorted(each.at_ns for each in found)
    assert {each.num_rows for each in found if each.model == "b"} == {4}


def test_gaps_are_those_of_a_poisson_process() -> None:
    gaps = np.diff([each.at_ns for each in synthetic([Stream("a", 1000.0)], 20.0, seed=3)]) / 1e9
    assert len(gaps) == pytest.approx(20_000, rel=0.03)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.03)


def test_too_many_and_none() -> None:
    with pytest.raises(InvalidArgumentError, match="some 1,000,000 requests, and 500,000 are the limit"):
        synthetic([Stream("a", 1000.0)], 1000.0, seed=0)
    with pytest.raises(InvalidArgumentError, match="no request arrives"):
        synthetic([Stream("a", 0.001)], 0.01, seed=0)
