"""An executable of several segments, which run one after the other on their units."""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from triune.arbiter.blocking import BlockingShare
from triune.core.datatypes import Array
from triune.core.errors import UnavailableError
from triune.core.runtime import Executable
from triune.core.tensors import Signature
from triune.core.units import Unit

Around: TypeAlias = Callable[[int], AbstractContextManager[None]]
"""A function of a segment's number that returns a context manager around the segment's run. The context is entered when
it is this call's turn in the segment; an error that it raises ends the call.
"""

_PRECISIONS: Final = ("bf16", "fp16", "fp32")
"""Floating-point formats, the least precise first."""


@dataclass(frozen=True)
class Segment:
    """A segment, compiled for its unit.

    Attributes:
        executable: the compiled segment.
        turn: a lock that is held while the segment runs, since several calls of the whole model may share the segment.
        share: asks the arbiter for the segment's turns on the hardware of its unit; None if no other model competes for
            that hardware.
    """

    executable: Executable
    turn: threading.Lock = field(default_factory=threading.Lock)
    share: BlockingShare | None = None

    @property
    def unit(self) -> Unit:
        """The unit that runs the segment."""
        return self.executable.unit

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the values that the segment reads."""
        return tuple(spec.name for spec in self.executable.signature.inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the values that the segment computes."""
        return tuple(spec.name for spec in self.executable.signature.outputs)


class SegmentedExecutable:
    """An `Executable` whose segments run one after the other, each on its unit.

    The result of one segment is passed to the next without a copy. Several SegmentedExecutables may share the segments
    and run calls at the same time: while one runs the second segment, another runs the first. So the segments form a
    pipeline.

    Attributes:
        segments: the segments, in order.
        units: their units, each once, in order.
        unit: the unit of the segment with the most operations.
        precision: the lowest precision of all segments.
        is_steady: whether the run time depends only on shapes. False if other executables share the segments, since a
            call then waits for its turn.
    """

    def __init__(
        self,
        signature: Signature,
        segments: Sequence[Segment],
        main: int,
        *,
        is_shared: bool,
        close: Callable[[], None],
    ) -> None:
        """Args:
        signature: the inputs and outputs of the whole model.
        segments: at least one segment. Each value that a segment reads is an input of the model or an output of an
            earlier segment.
        main: the number of the segment whose unit counts as that of the model.
        is_shared: whether other executables share the segments.
        close: the function that frees the segments. The method `close` calls it once.
        """
        self.signature = signature
        self.segments = tuple(segments)
        self.units = tuple(dict.fromkeys(each.unit for each in segments))
        self.unit = segments[main].unit
        found = {each.executable.precision for each in segments}
        self.precision = next((each for each in _PRECISIONS if each in found), segments[main].executable.precision)
        self.is_steady = not is_shared and all(each.executable.is_steady for each in segments)
        self._close = close
        self._inside: Executable | None = None
        self._is_interrupted = False
        self._ways: dict[tuple[str, ...], _Way] = {}

    @property
    def report(self) -> str:
        """The reports of the segments' libraries on where they compute."""
        return "; ".join(each.executable.report for each in self.segments)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute the named outputs: see `Executable.run`. Segments that these outputs do not need are not run."""
        return self.run_around(inputs, outputs, _nothing)

    def run_around(self, inputs: Mapping[str, Array], outputs: Sequence[str], around: Around) -> dict[str, Array]:
        """Compute the named outputs, with a context manager around each segment. Raises the errors of `Executable.run`.

        Raises:
            UnavailableError: the run was interrupted.
        """
        way = self._way(tuple(outputs))
        values = dict(inputs)
        try:
            for number, reads, wanted, done in way.steps:
                segment = self.segments[number]
                with segment.turn:
                    self._require_wanted()
                    self._inside = segment.executable
                    try:
                        with around(number):
                            given = {name: values[name] for name in reads if name in values}
                            values.update(segment.executable.run(given, wanted))
                    finally:
                        self._inside = None
                for name in done:
                    values.pop(name, None)
            self._require_wanted()
        finally:
            self._is_interrupted = False
        return {name: values[name] for name in outputs}

    def interrupt(self) -> None:
        """Ask the running segment to end soon; no further one begins."""
        self._is_interrupted = True
        inside = self._inside
        if inside is not None:
            inside.interrupt()

    def close(self) -> None:
        """Free the segments, unless others share them."""
        self._close()

    def _require_wanted(self) -> None:
        if self._is_interrupted:
            raise UnavailableError("the run took too long, and was ended between two segments")

    def _way(self, outputs: tuple[str, ...]) -> "_Way":
        if outputs not in self._ways:
            # Clients usually request few different sets of outputs, so only a limited number of sets is kept.
            if len(self._ways) >= _MOST_WAYS:
                self._ways.clear()
            self._ways[outputs] = _way_to(self.segments, outputs)
        return self._ways[outputs]


_MOST_WAYS: Final = 64


@dataclass(frozen=True, slots=True)
class _Way:
    """The segments that some outputs need.

    Attributes:
        steps: for each segment its number, the values that it reads, the outputs to compute, and the values that no
            later segment reads.
    """

    steps: Sequence[tuple[int, Sequence[str], Sequence[str], Sequence[str]]]


def _way_to(segments: Sequence[Segment], outputs: Sequence[str]) -> _Way:
    needed = set(outputs)
    steps: list[tuple[int, Sequence[str], Sequence[str], Sequence[str]]] = []
    for number in reversed(range(len(segments))):
        wanted = [name for name in segments[number].outputs if name in needed]
        if wanted:
            # The loop goes backwards, so `needed` has what later segments read. If a value is not in `needed`, this
            # segment is the last one that reads it.
            reads = segments[number].inputs
            done = [name for name in reads if name not in needed]
            needed.update(reads)
            steps.append((number, reads, wanted, done))
    return _Way(steps[::-1])


def _nothing(number: int) -> AbstractContextManager[None]:
    del number
    return nullcontext()
