"""The runner of a model that is divided into segments. It measures the time and the energy of each segment on its own
unit.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

from triune.core.clock import Clock
from triune.core.datatypes import Array
from triune.core.energy import Account
from triune.core.errors import UnavailableError
from triune.core.units import Unit
from triune.scheduling.batch import Batch, Part
from triune.scheduling.queue import Pending
from triune.scheduling.runner import TensorRunner
from triune.scheduling.segments.executable import SegmentedExecutable


class SegmentsRunner(TensorRunner):
    """A `TensorRunner` of a segmented executable.

    The next segment does not begin if all clients of the batch have disconnected. Each segment takes a turn on the
    hardware of its own unit, and its energy is charged here, since the dispatcher sees the batch as a whole.
    """

    is_charging = True

    def __init__(
        self, executable: SegmentedExecutable, clock: Clock, accounts: Mapping[Unit, Account] | None = None
    ) -> None:
        """Args:
        executable: the executable of the segments. It is closed with the runner.
        clock: the clock that measures the segments.
        accounts: the accounts that are charged with the energy of each unit; None if energy is not metered.
        """
        super().__init__(executable, clock)
        self.units = executable.units
        self._segmented = executable
        self._accounts = accounts or {}

    def _compute(
        self, batch: Batch, pendings: Sequence[Pending], inputs: Mapping[str, Array], outputs: Sequence[str]
    ) -> dict[str, Array]:
        rows = [(each.call.batch_size, each.call.bill) for each in pendings]
        parts: list[Part] = []

        @contextmanager
        def around(number: int) -> Generator[None]:
            if all(each.future.done() for each in pendings):
                raise UnavailableError("the request was withdrawn")
            segment = self._segmented.segments[number]
            if segment.share is not None:
                segment.share.begin()
            unit, started_ns = segment.unit, self.clock.now_ns()
            account = self._accounts.get(unit)
            work = account.begin_batch(started_ns, rows) if account is not None else None
            try:
                yield
            finally:
                ended_ns = self.clock.now_ns()
                if segment.share is not None:
                    segment.share.end(batch.num_elements, has_more=False)
                if work is not None:
                    work.ended_ns = ended_ns
                parts.append(Part(number, unit, started_ns, ended_ns))

        try:
            return self._segmented.run_around(inputs, outputs, around)
        finally:
            batch.parts = [*batch.parts, *parts]
