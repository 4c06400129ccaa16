"""Where a loaded model computes: the requested units, the planned ones, and the observed ones."""

from collections.abc import Sequence
from dataclasses import dataclass

from triune.core.units import Unit


@dataclass(frozen=True, slots=True)
class PlacedSegment:
    """A segment of a model, or a whole model, on a unit.

    Attributes:
        unit: the unit that runs the segment.
        runtime: the runtime that compiled it.
        precision: the floating-point format in which it computes.
        report: the runtime's own report of where it computes; empty if it has none.
        requested: the unit that the config names for the segment; None if the plan chooses the unit.
        planned: the unit in the plan; None if there is no plan.
        num_ops: the number of its operations; None for a whole model, whose operations were not counted.
        first: the name of its first operation; empty for a whole model.
        last: the name of its last operation; empty for a whole model.
        predicted_ms: the time of a call that the plan predicts; None if it predicts none.
        measured_ms: the time of a call on sample input, measured when the model was loaded; None if it was not
            measured.
        error: the largest difference from the outputs of `cpu` in fp32 on sample input; None on `cpu`, and if it is
            unknown.
        passed_bytes: the size of the results that the segment passes to other segments or returns as outputs, for
            sample input.
        notes: why the segment does not run on the planned unit, with the figures.
    """

    unit: Unit
    runtime: str
    precision: str
    report: str = ""
    requested: Unit | None = None
    planned: Unit | None = None
    num_ops: int | None = None
    first: str = ""
    last: str = ""
    predicted_ms: float | None = None
    measured_ms: float | None = None
    error: float | None = None
    passed_bytes: int | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a loaded model computes.

    Attributes:
        requested: the plan or units as written in the config: "latency", "cpu,amx", "cpu to clip_40, amx".
        is_cut: whether each call passes through all segments, one after the other. If not, each segment is the whole
            model on another unit.
        segments: the segments in their order.
        notes: why the model is or is not cut, with the figures.
    """

    requested: str
    is_cut: bool
    segments: Sequence[PlacedSegment]
    notes: Sequence[str] = ()

    @property
    def planned_units(self) -> Sequence[Unit]:
        """The units of the plan in order, each once. Without a plan, the units that the config names."""
        return tuple(dict.fromkeys(each.planned or each.requested or each.unit for each in self.segments))
