"""Plans: the segments of a model on the units of a chip, with predicted times and energies, and why each is there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from triune.core.units import Unit
from triune.hardware.rules import Refusal
from triune.planning.constants import Score
from triune.planning.core_ml import CoreMlChoice
from triune.planning.measured import MeasuredTime


class Goal(Enum):
    """What a plan is for."""

    LATENCY = "latency"
    """Minimize the time of one call."""
    THROUGHPUT = "throughput"
    """Maximize the calls per second, by a pipeline in which each unit has one segment."""
    ENERGY = "energy"
    """Minimize the energy of a call, within a time limit."""


@dataclass(frozen=True, slots=True)
class PlannedOp:
    """An operation of a plan.

    Attributes:
        name: its node's name.
        op_type: ONNX's operator.
        unit: the unit that is to compute it.
        ms: the predicted time.
        joules: the predicted energy.
        bound: what limits the time: "arithmetic", "memory", or "launch" if its launch is most of it.
        unit_ms: the predicted time on each unit that can compute it.
        refusals: why other units refuse it.
        inputs: the names of the operations whose results it reads.
    """

    name: str
    op_type: str
    unit: Unit
    ms: float
    joules: float
    bound: str
    unit_ms: Mapping[Unit, float]
    refusals: Mapping[Unit, Refusal]
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of operations on one unit.

    Attributes:
        unit: the unit.
        ops: its operations.
        launch_ms: the time of its launch and of the transfer of its inputs, which is part of `ms`.
        ms: the predicted time.
        joules: the predicted energy.
        why: why it is on this unit.
    """

    unit: Unit
    ops: Sequence[PlannedOp]
    launch_ms: float
    ms: float
    joules: float
    why: str


@dataclass(frozen=True, slots=True)
class Advice:
    """A change that would make a plan faster.

    Attributes:
        what: what to change, with the names of operations.
        saves_ms: the predicted time that it saves; None if the cost model cannot predict it.
        source: the publication or test that observed the rule behind the advice.
    """

    what: str
    saves_ms: float | None
    source: str


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole model on one unit.

    Attributes:
        unit: the unit.
        ms: the time: measured, if `measured` is not None, else predicted; None if the unit refuses an operation.
        joules: the energy: measured, if `measured` has joules, else predicted; None if the unit refuses an operation.
        num_refused: how many operations the unit refuses.
        predicted_ms: the time that the cost model alone predicts; None if the unit refuses an operation.
        measured: the time that was measured on this machine, and the energy, if that was; None if nothing was measured.
    """

    unit: Unit
    ms: float | None
    joules: float | None
    num_refused: int
    predicted_ms: float | None = None
    measured: MeasuredTime | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan. Every time and energy is a prediction of the cost model, corrected by measured times and energies of the
    whole model on this machine's units. The energy is NaN if a unit's power is unknown.

    Attributes:
        title: what is planned: the model, or a step of it.
        chip: the name of the chip.
        goal: what the plan is for.
        segments: in the order in which they run.
        ms: the predicted time of one call: the sum of the segments'.
        joules: the predicted energy of one call, of the units that compute.
        period_ms: the time between the ends of two consecutive calls. It is `ms`, or for a pipeline the time of its
            slowest segment or of reading all weights from memory, whichever is longer.
        wholes: the whole model on each unit alone, to compare with.
        core_ml: what Core ML would choose under `cpuAndNeuralEngine`; None if the plan may not use the Neural Engine.
        advice: changes that would make it faster, the largest saving first.
        latency_error: the error of predicted times for models of this class, on measurements that were held out; None
            if unknown.
        joules_error: the error of predicted energies; None if unknown.
        notes: the assumptions that were made.
    """

    title: str
    chip: str
    goal: Goal
    segments: Sequence[Segment]
    ms: float
    joules: float
    period_ms: float
    wholes: Sequence[Whole]
    core_ml: CoreMlChoice | None
    advice: Sequence[Advice]
    latency_error: Score | None
    joules_error: Score | None
    notes: Sequence[str]

    @property
    def measured(self) -> MeasuredTime | None:
        """The measured time of this plan, if the plan has one unit and the whole model was measured on it; else
        None.
        """
        units = {each.unit for each in self.segments}
        return next((each.measured for each in self.wholes if {each.unit} == units), None)

    @property
    def apart_per_second(self) -> float:
        """The predicted calls per second if every unit that can run the whole model computes calls of its own, in
        parallel with the others.
        """
        return sum(1e3 / each.ms for each in self.wholes if each.ms)

    def is_close(self, whole: Whole) -> bool:
        """Whether `whole`, the model on one unit, is another placement than this plan's, and the difference of their
        times is smaller than the median error of predictions, so that either may be faster.
        """
        if self.latency_error is None or whole.ms is None or (whole.measured and self.measured):
            return False
        if {each.unit for each in self.segments} == {whole.unit}:
            return False
        return abs(whole.ms - self.ms) < self.latency_error.median * self.ms

    @property
    def ops(self) -> list[PlannedOp]:
        """All operations, in their order."""
        return [op for segment in self.segments for op in segment.ops]
