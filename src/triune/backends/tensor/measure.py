"""What is measured when a model is loaded: how far a unit's answers are from the truth, and how long a run takes."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from triune.backends.tensor.compile import compile_one
from triune.backends.tensor.executable import SharedExecutable
from triune.config.model_config import ModelConfig
from triune.config.parameters import tolerance_of
from triune.config.placement import recipe_on
from triune.config.samples import sample_inputs, trial_inputs
from triune.core.clock import Clock
from triune.core.datatypes import Array, DataType
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.runtime import Executable
from triune.core.units import Unit
from triune.runtimes.machine import Machine

_log = logging.getLogger(__name__)

INLINE_LIMIT_NS = 100_000
"""A hand-over to a worker thread and back costs about this much, with the event loop's part of it."""

_NUM_RUNS = 15
_NUM_ROUNDS = 3

_SMALLEST = 1e-3
"""Outputs that are all smaller may be off as if their largest value were this: sums that cancel leave rounding."""


def is_quick(config: ModelConfig, executable: Executable, clock: Clock) -> bool:
    """Whether a run takes less time than handing it to a thread, so that the event loop may as well run it itself.

    That needs one executable (nothing to run beside it), a time that no values decide, a size that is known (only the
    batch is free, and no input is optional, which the sample would lack), one row out for each row in, and a median
    below INLINE_LIMIT_NS at the full batch size on sample input. A model that refuses its sample input is not quick:
    its time is unknown.
    """
    if len(config.units) > 1 or config.num_instances > 1 or not executable.is_steady:
        return False
    if any(
        -1 in tensor.dims or tensor.datatype is DataType.BYTES or tensor.is_optional
        for tensor in config.inputs.values()
    ):
        return False
    num_rows = config.batching.max_batch_size
    try:
        inputs = sample_inputs(config, max(num_rows, 1))
        started_ns = clock.now_ns()
        found = executable.run(inputs, list(config.outputs))
        if clock.now_ns() - started_ns > 1000 * INLINE_LIMIT_NS:
            return False
        # What runs on the loop is not looked at again: its rows are those of the batch, or it does not run there.
        if num_rows and any(array.shape[:1] != (num_rows,) for array in found.values()):
            return False
        # Other models load at the same time: a disturbed round says little, so the best of a few counts.
        return any(_round_ns(config, executable, inputs, clock) < INLINE_LIMIT_NS for _ in range(_NUM_ROUNDS))
    except InvalidArgumentError:
        return False


def _round_ns(config: ModelConfig, executable: Executable, inputs: Mapping[str, Array], clock: Clock) -> float:
    """The median of some runs; of few, if they are slow."""
    durations_ns: list[int] = []
    while len(durations_ns) < _NUM_RUNS:
        started_ns = clock.now_ns()
        executable.run(inputs, list(config.outputs))
        durations_ns.append(clock.now_ns() - started_ns)
        if durations_ns[-1] > 10 * INLINE_LIMIT_NS:
            break
    return median(durations_ns) if len(durations_ns) == _NUM_RUNS else durations_ns[-1]


@dataclass(frozen=True, slots=True)
class UnitError:
    """How far a unit's answers are from those of `cpu` on sample input.

    Attributes:
        largest: the largest absolute difference over all outputs; infinite where shapes, strings or NaNs differ.
        excess: what is told of the output that is beyond what the unit's precision allows; empty where none is.
    """

    largest: float
    excess: str = ""


def measure(
    config: ModelConfig,
    folder: Path,
    executables: Sequence[SharedExecutable],
    machine: Machine,
    *,
    known: Mapping[Unit, UnitError],
) -> dict[Unit, UnitError]:
    """The error of each of a model's units but `cpu`; one that cannot be measured is logged and left out.

    Args:
        config: of the model.
        folder: the model's folder, for its warm-up files.
        executables: the first of each unit is measured. Without one on `cpu`, one is compiled for the time.
        machine: has the runtimes.
        known: what was measured before.

    Raises:
        InternalError: a runtime failed.
    """
    errors = {unit: known[unit] for unit in config.units if unit in known}
    first = {each.unit: each for each in reversed(executables)}
    units = [unit for unit in config.units if unit is not Unit.CPU and unit not in errors]
    if not units:
        return errors
    tolerances = {unit: tolerance_of(config.parameters, first[unit].precision) for unit in units}
    with ExitStack() as stack:
        try:
            truth = first.get(Unit.CPU)
            if truth is None:
                truth = compile_one(config.path, recipe_on(Unit.CPU, machine.num_cores, config, machine), machine)
                stack.callback(truth.close)
            for unit in units:
                errors[unit] = unit_error(config, folder, truth, first[unit], tolerances[unit])
        except (InvalidArgumentError, UnsupportedError) as error:
            missing = ", ".join(unit.value for unit in units if unit not in errors)
            _log.warning("model '%s': error of %s against cpu is unavailable: %s", config.name, missing, error)
    return errors


def unit_error(
    config: ModelConfig, folder: Path, truth: Executable, executable: Executable, tolerance: float
) -> UnitError:
    """Compare two executables' outputs on sample input.

    Args:
        config: the model's.
        folder: the model's folder, for its warm-up files.
        truth: the model on `cpu`.
        executable: the model on another unit.
        tolerance: how far a float may be off, relative to the largest value of its output; and the share of the
            elements that may differ in an output of whole numbers, truths or strings.

    Raises:
        InvalidArgumentError: the model accepts none of the sample inputs, so that the error is unavailable.
    """
    refusal = InvalidArgumentError("it takes no input")
    names = list(config.outputs)
    for inputs in trial_inputs(config, folder):
        try:
            expected = truth.run(inputs, names)
        except InvalidArgumentError as error:
            refusal = error
            continue
        found = executable.run(inputs, names)
        largest = _largest_difference(expected, found)
        excess = _excess(expected, found, tolerance)
        # What draws random numbers is no measure of a unit.
        if excess and _excess(expected, truth.run(inputs, names), tolerance):
            excess = ""
        return UnitError(largest, excess)
    raise InvalidArgumentError(f"the model accepts none of the sample inputs: {refusal}; give it a model_warmup sample")


def _largest_difference(expected: Mapping[str, Array], found: Mapping[str, Array]) -> float:
    return max((_difference(expected[name], found[name]) for name in expected), default=0.0)


def _excess(expected: Mapping[str, Array], found: Mapping[str, Array], tolerance: float) -> str:
    """What is told of the first output that is further off than `tolerance` allows; empty where none is."""
    for name, array in expected.items():
        difference = _difference(array, found[name])
        if array.dtype.kind == "f" and array.shape == found[name].shape:
            largest = float(np.max(np.abs(array.astype(np.float64)), where=np.isfinite(array), initial=0.0))
            if difference > tolerance * max(largest, _SMALLEST):
                return f"output '{name}' is off by {difference:.3g}, where its largest value is {largest:.3g}"
        elif difference == np.inf or (difference > 0 and np.mean(array != found[name]) > tolerance):
            return f"output '{name}' has other values"
    return ""


def _difference(expected: Array, found: Array) -> float:
    if expected.shape != found.shape:
        return float("inf")
    if expected.size == 0:
        return 0.0
    if expected.dtype == np.object_:
        return 0.0 if bool(np.all(expected == found)) else float("inf")
    theirs, ours = expected.astype(np.float64), found.astype(np.float64)
    # Equal values, infinities among them, differ by nothing; what is NaN on one side only is infinitely wrong.
    is_same = (theirs == ours) | (np.isnan(theirs) & np.isnan(ours))
    with np.errstate(invalid="ignore"):
        differences = np.where(is_same, 0.0, np.abs(theirs - ours))
    return float(np.nan_to_num(differences, nan=np.inf, posinf=np.inf).max())
