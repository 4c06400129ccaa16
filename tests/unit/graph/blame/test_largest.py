"""The size of inputs from which answers are lost is found in few runs, and none of it is said without having been
seen."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from support.graphs import model_of
from triune.core.datatypes import Array
from triune.core.errors import UnsupportedError
from triune.graph.audit import Input, sized_inputs
from triune.graph.blame.largest import largest_note
from triune.graph.verify import OnnxModel

SOURCE = OnnxModel(model_of("g (float[64] x) => (float[64] y) { y = Identity (x) }", opset=18), 0.05)
INPUTS = sized_inputs([Input("x", np.dtype(np.float32), ((64,),))])


class Lossy:
    """A conversion whose answer is lost beyond a limit.

    Attributes:
        num_runs: how often it ran.
    """

    def __init__(self, limit: float, lost: Callable[[Array], Array]) -> None:
        self._limit, self._lost = limit, lost
        self.num_runs = 0

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.num_runs += 1
        x = inputs["x"]
        return {"y": np.where(np.abs(x) > self._limit, self._lost(x), x).astype(np.float32)}


def note(conversion: Lossy, *, seconds: float = 600.0, run_seconds: float = 0.0) -> str | None:
    return largest_note(INPUTS, SOURCE.run, conversion.run, SOURCE, 0.05, seconds, run_seconds)


@pytest.mark.parametrize(
    ("lost", "what"),
    [(lambda x: x * np.nan, "is NaN"), (lambda x: x * np.inf, "is infinite"), (np.zeros_like, "is off")],
)
def test_the_size_is_found_whatever_the_loss_is(lost: Callable[[Array], Array], what: str) -> None:
    conversion = Lossy(900, lost)
    found = note(conversion)
    assert found is not None
    assert "right for generated inputs up to 512; for " in found
    assert f"numbers up to 1024 output 'y' {what}" in found
    assert conversion.num_runs <= 10


def test_the_note_says_that_fp16_has_no_larger_inputs() -> None:
    found = note(Lossy(65504, lambda x: x * np.inf))
    assert found is not None
    assert "right for generated inputs up to 60000; for " in found
    assert "numbers up to 1e+06 output 'y' is infinite, since nodes in fp16 read numbers beyond 65504 as infin" in found


def test_nothing_is_said_where_nothing_is_lost() -> None:
    conversion = Lossy(np.inf, np.zeros_like)
    assert note(conversion) == ""
    assert conversion.num_runs == 2


def test_without_time_nothing_is_said_to_be_right() -> None:
    conversion = Lossy(900, np.zeros_like)
    assert note(conversion, seconds=10, run_seconds=20) is None
    assert conversion.num_runs == 0


def test_inputs_that_the_source_refuses_say_nothing() -> None:
    def refused(inputs: Mapping[str, Array]) -> dict[str, Array]:
        raise UnsupportedError("too large")

    conversion = Lossy(900, np.zeros_like)
    assert largest_note(INPUTS, refused, conversion.run, SOURCE, 0.05, 600, 0) == ""
