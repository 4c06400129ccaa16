"""Optimize a graph: run the passes of a level, and keep only those whose result is equal to the source."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from onnx import ModelProto

from triune.core.datatypes import Array
from triune.core.errors import TriuneError, UnsupportedError, reworded
from triune.core.units import Unit
from triune.graph.conversion.prepare import Report, silent
from triune.graph.conversion.shapes import InputShape
from triune.graph.custom import NO_CUSTOM_OPS, CustomOps
from triune.graph.editing import opset_of
from triune.graph.optimizing.comparison import Comparison
from triune.graph.optimizing.level import Level
from triune.graph.optimizing.levels import Given, Step, steps_of
from triune.graph.optimizing.prepare import prepared
from triune.graph.optimizing.report import PassReport, change_between, op_counts
from triune.graph.own_names import restore_names, with_own_names
from triune.graph.passes.tidy_and_infer import TidyAndInfer
from triune.graph.verify import OutputVerdict, Verdict, check_given
from triune.graph.weight_files import WeightFile

MAX_ROUNDS = 8
"""The largest number of times that the passes of a level run. They run again because the change of one pass may allow
another pass to change more.
"""

_MARK = "triune.optimized"
"""The key of the model's metadata that records for which level and unit the passes with `Step.is_last` have run."""

_PASS_SECONDS = 2.0
"""The time limit, in seconds, for comparing the result of one pass with the source. One set of inputs is compared even
if it takes longer.
"""

_FINAL_SECONDS = 20.0
"""The time limit, in seconds, for comparing the final model with the source."""


@dataclass(frozen=True, slots=True)
class Optimized:
    """An optimized model.

    Attributes:
        model: the model. Its large weights are in files, as `graph.load.load` leaves them.
        before: the source with inferred shapes, with which it was compared.
        passes: a report of each pass that changed the model, and of each that was left out, in the order in which they
            ran.
        idle: the passes that found nothing to do.
        outputs: the verdict on each output of the final model; empty if it could not be compared.
        not_compared: why nothing was compared; "" if it was.
        notes: messages for the user.
    """

    model: ModelProto
    before: ModelProto
    passes: Sequence[PassReport]
    idle: Sequence[str]
    outputs: Sequence[OutputVerdict]
    not_compared: str
    notes: Sequence[str]


def optimize(
    model: ModelProto,
    level: Level,
    unit: Unit,
    file: WeightFile,
    *,
    shapes: Mapping[str, InputShape] | None = None,
    inputs: Mapping[str, Array] | None = None,
    ops: CustomOps = NO_CUSTOM_OPS,
    force: bool = False,
    tell: Report = silent,
) -> Optimized:
    """Optimize a model for a unit.

    After each pass, shapes are inferred and checked, and ONNX Runtime computes the result and the source on the same
    inputs. A pass whose result differs is left out.

    Args:
        model: a result of `load`; not changed.
        level: the level, which says which passes run.
        unit: the unit that is to run the model.
        file: the scratch file for new large weights. The result refers to it.
        shapes: sizes to fix, by input.
        inputs: arrays on which results are compared, by input; arrays for other inputs are made up.
        ops: the custom operators of `model` that numpy computes: they stay, and the graph around them is optimized.
        force: whether a model that cannot be compared is optimized all the same.
        tell: called with a line of text at each pass.

    Raises:
        InvalidArgumentError: the model is not valid ONNX, or a shape or an input does not fit it.
        UnsupportedError: results cannot be compared with the source, or differ from it although all changes are
            undone, unless `force`; or its operator set is too old.
    """
    shapes = shapes or {}
    check_given(model, inputs or {})
    before, notes = prepared(model, shapes, file, ops)
    comparison, not_compared = _comparison(before, shapes, inputs or {}, ops, force=force)
    own, former = with_own_names(before)
    run = _Run(own, level, unit, file, comparison, tell)
    run.all_rounds()
    outputs: Sequence[OutputVerdict] = ()
    if comparison is not None and level is not Level.O0:
        tell("comparing the result with the source")
        outputs = run.compared(comparison, force=force)
    restore_names(run.model.graph, former)
    idle = [step.name for step in run.steps if step.name not in {each.name for each in run.reports}]
    return Optimized(run.model, before, run.reports, idle, outputs, not_compared, notes)


def _comparison(
    source: ModelProto, shapes: Mapping[str, InputShape], given: Mapping[str, Array], ops: CustomOps, *, force: bool
) -> tuple[Comparison | None, str]:
    try:
        comparison = Comparison(source, shapes, given, ops)
        comparison.verdicts(source, is_exact=True, is_plain=True, seconds=0)
    except TriuneError as error:
        if force:
            return None, str(error)
        raise reworded(error, f"{error}; --force optimizes the model without comparing") from error
    return comparison, ""


class _Run:
    """The passes over one model.

    Attributes:
        model: the model so far.
        steps: the passes of the level.
        reports: a report of each pass that changed the model, and of each that was left out.
    """

    def __init__(
        self,
        model: ModelProto,
        level: Level,
        unit: Unit,
        file: WeightFile,
        comparison: Comparison | None,
        tell: Report,
    ) -> None:
        self.model = model
        self.steps = steps_of(level, unit)
        self.reports: list[PassReport] = []
        self._unit = unit
        self._file = file
        self._comparison = comparison
        self._tell = tell
        self._left_out: set[str] = set()
        # Whether only exact passes have changed the model so far.
        self._is_exact = True
        self._before: list[tuple[int, ModelProto]] = []
        self._mark = f"{level.value} {unit.value}"

    def all_rounds(self) -> None:
        """Run the passes until none of them changes anything, but not more than MAX_ROUNDS times; then those that
        have `Step.is_last`, if they have not run over this model before.
        """
        last = [step for step in self.steps if step.is_last]
        exact = [step for step in self.steps if step.level is Level.O1]
        if last and _is_marked(self.model, self._mark):
            self._repeat(exact)
            return
        self._repeat([step for step in self.steps if not step.is_last])
        if [step for step in last if self._try(step)]:
            self._repeat(exact)
            self.model.metadata_props.add(key=_MARK, value=self._mark)

    def compared(self, comparison: Comparison, *, force: bool) -> Sequence[OutputVerdict]:
        """Compare the result, as ONNX Runtime optimizes it, with the source. While it is wrong, undo the latest
        change that a pass made.

        Args:
            comparison: the source.
            force: whether a wrong result is kept.

        Returns:
            the verdicts on the outputs of the result.

        Raises:
            UnsupportedError: the result differs although all changes are undone. The errors of the comparison are
                raised, too.
        """
        found: Sequence[OutputVerdict] = ()
        while True:
            try:
                found = comparison.verdicts(self.model, is_exact=False, is_plain=False, seconds=_FINAL_SECONDS)
                why = "; ".join(each.described for each in found if each.verdict is Verdict.WRONG)
            except TriuneError as error:
                if force or not self._before:
                    raise
                why = str(error)
            if not why or force:
                return found
            if not self._before:
                raise UnsupportedError(
                    f"the model would differ from the source although no pass has changed it: {why}; --force writes it"
                )
            position, self.model = self._before.pop()
            undone = self.reports[position]
            num_nodes = undone.num_nodes_before
            self.reports[position] = replace(
                undone, change="", num_nodes_after=num_nodes, left_out=f"at the end, {why}"
            )

    def _repeat(self, steps: Sequence[Step]) -> None:
        for _ in range(MAX_ROUNDS):
            num_taken = sum(self._try(step) for step in steps if step.name not in self._left_out)
            if not num_taken:
                return

    def _try(self, step: Step) -> bool:
        """Run a pass, and keep its result if it is right. Returns whether a changed model was kept."""
        self._tell(step.name)
        started = time.monotonic()
        candidate = ModelProto()
        candidate.CopyFrom(self.model)
        why = ""
        try:
            candidate = step.make(Given(opset_of(candidate), self._unit, self._file))(candidate)
            candidate = TidyAndInfer(self._file)(candidate)
            if _key(candidate) == _key(self.model):
                return False
            why = _difference_of_interface(self.model, candidate)
            if not why and self._comparison is not None:
                why = self._comparison.wrong(
                    candidate, is_exact=self._is_exact and step.level is Level.O1, is_plain=True, seconds=_PASS_SECONDS
                )
        except TriuneError as error:
            why = str(error)
        taken = self.model if why else candidate
        self.reports.append(
            PassReport(
                step.name,
                step.what,
                "" if why else change_between(self.model, taken),
                op_counts(self.model).total(),
                op_counts(taken).total(),
                time.monotonic() - started,
                why,
            )
        )
        if why:
            self._left_out.add(step.name)
            return False
        self._before.append((len(self.reports) - 1, self.model))
        self.model = candidate
        self._is_exact = self._is_exact and step.level is Level.O1
        return True


def _is_marked(model: ModelProto, mark: str) -> bool:
    return any(each.key == _MARK and each.value == mark for each in model.metadata_props)


def _key(model: ModelProto) -> bytes:
    """A hash of a model's nodes and of the names and shapes of its constants, without the types of its values."""
    total = hashlib.sha256()
    for message in (*model.opset_import, *model.graph.input, *model.graph.output, *model.graph.node):
        total.update(message.SerializeToString(deterministic=True))
    # A changed constant always has a new name, so that names identify constants.
    for tensor in sorted(model.graph.initializer, key=lambda each: each.name):
        total.update(repr((tensor.name, tensor.data_type, tuple(tensor.dims))).encode())
    return total.digest()


def _difference_of_interface(before: ModelProto, after: ModelProto) -> str:
    """Describes how a pass changed the names, types or shapes of inputs and outputs; "" if it did not."""
    for what, old, new in (
        ("input", before.graph.input, after.graph.input),
        ("output", before.graph.output, after.graph.output),
    ):
        if [each.name for each in old] != [each.name for each in new]:
            return f"it changed the names of {what}s"
        for one, other in zip(old, new, strict=True):
            sizes = [
                [dim.dim_value if dim.HasField("dim_value") else None for dim in each.type.tensor_type.shape.dim]
                for each in (one, other)
            ]
            is_typed = one.type.tensor_type.elem_type == other.type.tensor_type.elem_type
            clash = len(sizes[0]) != len(sizes[1]) or any(
                a is not None and b is not None and a != b for a, b in zip(*sizes, strict=False)
            )
            has_shapes = one.type.tensor_type.HasField("shape") and other.type.tensor_type.HasField("shape")
            if not is_typed or (has_shapes and clash):
                return f"it changed the type of {what} '{one.name}'"
    return ""
