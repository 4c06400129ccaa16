"""An executable made of segments: what runs, in which order, and what is passed on."""

import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from triune.core.datatypes import Array, DataType
from triune.core.errors import UnavailableError
from triune.core.tensors import Signature, TensorSpec
from triune.core.units import Unit
from triune.scheduling.segments.executable import Segment, SegmentedExecutable


def specs(names: Sequence[str]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, DataType.FP32, (-1,)) for name in names)


class Adder:
    """Each output is the sum of the inputs. It remembers what it was given and asked for."""

    is_steady = True

    def __init__(self, inputs: str, outputs: str, unit: Unit = Unit.CPU, precision: str = "fp32") -> None:
        self.signature = Signature(specs(inputs.split()), specs(outputs.split()))
        self.unit = unit
        self.precision = precision
        self.calls: list[tuple[dict[str, Array], list[str]]] = []
        self.given_back: dict[str, Array] = {}
        self.num_interrupts = 0
        self.on_run: Callable[[], object] = lambda: None

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        self.calls.append((dict(inputs), list(outputs)))
        self.on_run()
        self.given_back = {name: np.asarray(sum(inputs.values())) for name in outputs}
        return dict(self.given_back)

    def interrupt(self) -> None:
        self.num_interrupts += 1

    def close(self) -> None:
        pass


def whole(*parts: Adder, is_shared: bool = False, segments: Sequence[Segment] = ()) -> SegmentedExecutable:
    signature = Signature(specs("x"), specs(["y"]))
    return SegmentedExecutable(
        signature, segments or [Segment(each) for each in parts], 0, is_shared=is_shared, close=lambda: None
    )


X = np.arange(3, dtype=np.float32)


def test_a_result_is_the_next_input_itself() -> None:
    first, second = Adder("x", "a b"), Adder("a b x", "y", Unit.AMX, "bf16")
    executable = whole(first, second)
    answer = executable.run({"x": X}, ["y"])
    np.testing.assert_array_equal(answer["y"], 3 * X)
    given, asked = second.calls[0]
    assert asked == ["y"]
    assert given["a"] is first.given_back["a"]
    assert given["x"] is X
    assert (executable.units, executable.unit, executable.precision) == ((Unit.CPU, Unit.AMX), Unit.CPU, "bf16")


def test_segments_that_no_output_needs_do_not_run() -> None:
    first, aside, last = Adder("x", "a b"), Adder("b", "z"), Adder("a", "y")
    executable = whole(first, aside, last)
    assert list(executable.run({"x": X}, ["y"])) == ["y"]
    assert aside.calls == []
    assert first.calls[0][1] == ["a"]
    assert list(executable.run({"x": X}, ["z", "y", "a"])) == ["z", "y", "a"]
    assert len(aside.calls) == 1


def test_an_input_that_is_left_out_is_left_out() -> None:
    first = Adder("x other", "y")
    whole(first).run({"x": X}, ["y"])
    assert list(first.calls[0][0]) == ["x"]


def test_an_interrupted_run_ends_before_the_next_segment() -> None:
    first, second = Adder("x", "a"), Adder("a", "y")
    executable = whole(first, second)
    first.on_run = executable.interrupt
    with pytest.raises(UnavailableError, match="between two segments"):
        executable.run({"x": X}, ["y"])
    assert (first.num_interrupts, second.num_interrupts, second.calls) == (1, 0, [])
    first.on_run = lambda: None
    np.testing.assert_array_equal(executable.run({"x": X}, ["y"])["y"], X)


def test_shared_segments_make_a_pipeline_in_which_each_runs_one_call_at_a_time() -> None:
    """While one call is in the second segment, another is in the first; no segment ever has two."""
    first, second = Adder("x", "a"), Adder("a", "y")
    segments = [Segment(first), Segment(second)]
    executables = [whole(is_shared=True, segments=segments) for _ in range(2)]
    is_in_second, is_in_first = threading.Event(), threading.Event()
    inside = {"first": 0, "second": 0}
    most: list[int] = []

    def in_first() -> None:
        inside["first"] += 1
        most.append(inside["first"])
        if is_in_second.is_set():
            is_in_first.set()
        inside["first"] -= 1

    def in_second() -> None:
        inside["second"] += 1
        most.append(inside["second"])
        is_in_second.set()
        # It goes on only if the other call gets into the first segment meanwhile.
        assert is_in_first.wait(30)
        inside["second"] -= 1

    first.on_run, second.on_run = in_first, in_second
    answers: list[Array] = []
    one = threading.Thread(target=lambda: answers.append(executables[0].run({"x": X}, ["y"])["y"]))
    one.start()
    assert is_in_second.wait(30)
    answers.append(executables[1].run({"x": 2 * X}, ["y"])["y"])
    one.join()
    assert max(most) == 1
    assert sorted(each.sum() for each in answers) == [X.sum(), 2 * X.sum()]
    assert not executables[0].is_steady


def test_a_call_that_waits_for_its_turn_does_not_interrupt_the_one_that_runs() -> None:
    first = Adder("x", "y")
    segments = [Segment(first)]
    waiting = whole(is_shared=True, segments=segments)
    with segments[0].turn:
        failures: list[BaseException] = []

        def run() -> None:
            try:
                waiting.run({"x": X}, ["y"])
            except UnavailableError as error:
                failures.append(error)

        other = threading.Thread(target=run)
        other.start()
        waiting.interrupt()
        assert first.num_interrupts == 0
    other.join()
    # It was interrupted before it began or while it waited.
    assert len(failures) + len(first.calls) == 1
