"""Workers whose batches take the time that the planner predicts."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from triune.core.clock import Clock
from triune.core.errors import InternalError
from triune.core.units import Unit
from triune.scheduling.batch import Batch
from triune.scheduling.worker import BatchCallback
from triune.simulation.chip import SimulatedChip
from triune.simulation.profile import Profile


class SimulatedBatch(NamedTuple):
    """A batch that has run.

    Attributes:
        model, unit: the model, and the unit that computed the batch.
        num_rows: the number of its rows.
        joules: its energy.
        arrived_ns: when each of its requests arrived. A request that is computed in parts counts in the batch with its
            last part.
        started_ns, ended_ns: when it began and ended.
        request_rows: the number of rows of each of these requests.
    """

    model: str
    unit: Unit
    num_rows: int
    joules: float
    arrived_ns: Sequence[int]
    started_ns: int
    ended_ns: int
    request_rows: Sequence[int]


class SimulatedRunner:
    """Has the properties of a runner that the dispatcher reads. It runs no batches: `SimulatedWorker` ends them.

    Attributes:
        unit: the unit that the batches run on.
        units: a tuple of that unit alone.
        is_charging: whether the runner charges energy. It does not, since the chip counts it.
        is_steady: whether to watch for a unit that becomes slower, by heat. False, since heat is not simulated.
    """

    is_charging = False
    is_steady = False

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.units = (unit,)

    def run(self, batch: Batch) -> None:
        """Raise InternalError: `SimulatedWorker` runs the batches, and never calls its runner."""
        raise InternalError(f"a batch of {batch.num_rows} rows was given to a simulated runner")

    def interrupt(self) -> None:
        """Do nothing: no simulated batch takes longer than predicted."""

    def close(self) -> None:
        """Do nothing: there is nothing to free."""


class SimulatedWorker:
    """A `Worker` whose batches compute nothing. Their answers have no outputs."""

    is_inline = False

    def __init__(
        self,
        profile: Profile,
        unit: Unit,
        chip: SimulatedChip,
        clock: Clock,
        ran: Callable[[SimulatedBatch], None],
    ) -> None:
        """Make a worker of a model on a unit.

        Args:
            profile: the profile of the model.
            unit: one of the units that serve it.
            chip: the chip that runs the batches.
            clock: the chip's clock.
            ran: the function that is called with each batch that has ended.
        """
        self.runner = SimulatedRunner(unit)
        self._profile = profile
        self._chip = chip
        self._clock = clock
        self._ran = ran

    def start(self, batch: Batch, done: BatchCallback) -> None:
        """Simulate the batch on the chip: it ends, on the virtual clock, after the time that the chip takes for it."""
        batch.started_ns = self._clock.now_ns()
        cost = self._profile.cost(self.runner.unit, batch.num_rows)
        self._chip.begin(self.runner.unit, cost, partial(self._end, batch, done))

    def close(self) -> None:
        """Do nothing: there is nothing to free."""

    def _end(self, batch: Batch, done: BatchCallback, joules: float) -> None:
        batch.ended_ns = self._clock.now_ns()
        batch.infer_ns = batch.ended_ns - batch.started_ns
        batch.num_executions = 1
        batch.answers = [{} for _ in batch.pendings]
        ended = [each for each in batch.pendings if each.division is None or each.division.is_last_open]
        self._ran(
            SimulatedBatch(
                self._profile.name,
                self.runner.unit,
                batch.num_rows,
                joules,
                [each.arrived_ns for each in ended],
                batch.started_ns,
                batch.ended_ns,
                [(each.division.whole if each.division else each).call.batch_size for each in ended],
            )
        )
        done(batch)
