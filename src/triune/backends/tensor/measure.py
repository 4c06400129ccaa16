"""Measurements at load: the numerical error of each unit against `cpu`, and the time of a run."""

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
"""About the time of passing a batch to a worker thread and back, including the event loop's part."""

_NUM_RUNS = 15
_NUM_ROUNDS = 3

_SMALLEST = 1e-3
"""The lower bound of an output's largest value in the relative error, since sums that cancel leave rounding errors."""


def is_quick(config: ModelConfig, executable: Executable, clock: Clock) -> bool:
    """Whether a run is faster than switching to a thread, so that the event loop's thread should run the model.

    The conditions: there is only one executable; its run time does not depend on the inputs' values; only the batch
    dimension is free, and no input is optional (the sample would lack it); every output has one row for each input row;
    and the median time for the largest batch of sample input is below INLINE_LIMIT_NS. If the model refuses its sample
    input, its time is unknown, and the result is False.
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
        # Check the number of rows of outputs here: for small models it is not checked later.
        if num_rows and any(array.shape[:1] != (num_rows,) for array in found.values()):
            return False
        # Take the best of a few rounds, since other loads may disturb the measurement.
        return any(_round_ns(config, executable, inputs, clock) < INLINE_LIMIT_NS for _ in range(_NUM_ROUNDS))
    except InvalidArgumentError:
        return False


def _round_ns(config: ModelConfig, executable: Executable, inputs: Mapping[str, Array], clock: Clock) -> float:
    """The median time of several runs, or of fewer if they are slow."""
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
    """How far a unit's outputs differ from those of `cpu` on sample input.

    Attributes:
        largest: the largest absolute difference over all outputs; infinite if shapes, strings or NaNs differ.
        excess: the message for an output whose difference exceeds the tolerance of the unit's precision; else empty.
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
    """Measure the error of each unit except `cpu`. A unit that cannot be measured is logged and left out.

    Args:
        config: the model's configuration.
        folder: the model's folder, for its warm-up files.
        executables: the first of each unit is measured. If none is on `cpu`, one is compiled temporarily.
        machine: the machine with the runtimes.
        known: earlier measurements, which are reused.

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
    """Compare the outputs of two executables on sample input.

    Args:
        config: the model's configuration.
        folder: the model's folder, for its warm-up files.
        truth: the model on `cpu`.
        executable: the model on another unit.
        tolerance: for an output of floats, the allowed difference divided by the output's largest value; for an
            output of integers, booleans or strings, the fraction of elements that may differ.

    Raises:
        InvalidArgumentError: the model accepts none of the sample inputs, so that its error is not known.
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
        # A model whose outputs differ from run to run draws random numbers, and cannot be compared.
        if excess and _excess(expected, truth.run(inputs, names), tolerance):
            excess = ""
        return UnitError(largest, excess)
    raise InvalidArgumentError(f"the model accepts none of the sample inputs: {refusal}; give it a model_warmup sample")


def _largest_difference(expected: Mapping[str, Array], found: Mapping[str, Array]) -> float:
    return max((_difference(expected[name], found[name]) for name in expected), default=0.0)


def _excess(expected: Mapping[str, Array], found: Mapping[str, Array], tolerance: float) -> str:
    """The message for the first output whose difference exceeds `tolerance`; empty if there is none."""
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
    # Equal values, including infinities, and NaN on both sides have difference 0. NaN on one side has difference
    # infinity.
    is_same = (theirs == ours) | (np.isnan(theirs) & np.isnan(ours))
    with np.errstate(invalid="ignore"):
        differences = np.where(is_same, 0.0, np.abs(theirs - ours))
    return float(np.nan_to_num(differences, nan=np.inf, posinf=np.inf).max())
