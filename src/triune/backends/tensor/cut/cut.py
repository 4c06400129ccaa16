"""A model that is cut: its compiled segments, and the executables that run them."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from triune.arbiter.blocking import BlockingShare
from triune.backends.tensor.cut.compiled import Compiled
from triune.core.scratch import HeldFolder
from triune.core.tensors import Signature
from triune.core.units import Unit
from triune.scheduling.segments.executable import Segment, SegmentedExecutable


class Cut:
    """The segments of a model, and the folder with the segments' files. Worker processes of segments read these files
    again when they restart.

    Attributes:
        compiled: the segments, in order.
        is_pipeline: whether segments run at the same time, each with another batch.
    """

    def __init__(
        self, signature: Signature, compiled: Sequence[Compiled], folder: HeldFolder, *, is_pipeline: bool
    ) -> None:
        """Args:
        signature: the inputs and outputs of the whole model.
        compiled: the segments, which this owns from now on.
        folder: the folder of their files, which this owns too.
        is_pipeline: whether segments run at the same time.
        """
        self.compiled = tuple(compiled)
        self.is_pipeline = is_pipeline
        self._signature = signature
        self._folder = folder
        self._segments = tuple(Segment(each.executable) for each in compiled)
        self._main = max(range(len(compiled)), key=lambda at: len(compiled[at].piece.nodes))
        self._lock = threading.Lock()
        self._num_open = 0

    @property
    def units(self) -> tuple[Unit, ...]:
        """The units, each once, in the order of the segments."""
        return tuple(dict.fromkeys(each.executable.unit for each in self.compiled))

    @property
    def precisions(self) -> Mapping[Unit, str]:
        """The floating-point format on each unit; if several segments are on a unit, that of the first."""
        return {each.executable.unit: each.executable.precision for each in reversed(self.compiled)}

    @property
    def is_hosted(self) -> bool:
        """Whether a segment runs in another process."""
        return any(each.executable.is_hosted for each in self.compiled)

    def open(self, share_of: Callable[[Unit], BlockingShare | None] = lambda _: None) -> list[SegmentedExecutable]:
        """Returns one executable for each concurrent batch: in a pipeline as many as there are segments, else one.

        Closing the last of them closes the cut.

        Args:
            share_of: makes the `BlockingShare` with which a segment waits for its turns on the hardware of its unit;
                None lets it compute at any time.
        """
        self._segments = tuple(replace(each, share=share_of(each.unit)) for each in self._segments)
        self._num_open = len(self._segments) if self.is_pipeline else 1
        return [self._executable(self._close_one) for _ in range(self._num_open)]

    def lend(self) -> list[SegmentedExecutable]:
        """Create executables for measuring the cut. Closing them frees nothing."""
        return [self._executable(_nothing) for _ in range(len(self._segments) if self.is_pipeline else 1)]

    def close(self) -> None:
        """Free the segments and their files."""
        for each in self._segments:
            if each.share is not None:
                each.share.close()
            each.executable.close()
        self._folder.remove()

    def _executable(self, close: Callable[[], None]) -> SegmentedExecutable:
        return SegmentedExecutable(self._signature, self._segments, self._main, is_shared=self.is_pipeline, close=close)

    def _close_one(self) -> None:
        with self._lock:
            self._num_open -= 1
            is_last = self._num_open == 0
        if is_last:
            self.close()


def _nothing() -> None:
    pass
