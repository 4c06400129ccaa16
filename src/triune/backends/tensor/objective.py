"""Measure, when a model is loaded, whether it can meet its latency objective."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from triune.backends.tensor.executable import SharedExecutable
from triune.config.model_config import ModelConfig
from triune.config.objective import OBJECTIVE_PARAMETER, objective_of
from triune.config.samples import trial_inputs
from triune.core.clock import Clock
from triune.core.errors import InvalidArgumentError

_NUM_RUNS: Final = 3

_log = logging.getLogger(__name__)


def objective_shortfall(
    config: ModelConfig, folder: Path, executables: Sequence[SharedExecutable], clock: Clock
) -> str:
    """Log and return why a model cannot meet its latency objective; "" if it can, or has no objective.

    A sample with one row is timed on each unit. The least time of a request is the time on the fastest unit. Under load
    it is twice as long, since a request waits for the previous batch.

    Raises:
        InvalidArgumentError: the objective is not a number of milliseconds.
    """
    objective_ns = objective_of(config.parameters)
    if not objective_ns:
        return ""
    first = {each.unit: each for each in reversed(executables)}
    times = {unit: each for unit, executable in first.items() if (each := _run_ns(config, folder, executable, clock))}
    if not times:
        return ""
    unit = min(times, key=lambda each: times[each])
    if times[unit] <= objective_ns / 2:
        return ""
    when = "even alone" if times[unit] > objective_ns else "under load, where a request waits for the one before"
    message = (
        f"its {OBJECTIVE_PARAMETER} of {objective_ns / 1e6:g} cannot be met {when}: one sample takes "
        f"{times[unit] / 1e6:.3g} ms on '{unit.value}', the fastest of its units; allow "
        f"{math.ceil(2.1 * times[unit] / 1e6)}, or serve it on a faster unit"
    )
    _log.warning("model '%s': %s", config.name, message)
    return message


def _run_ns(config: ModelConfig, folder: Path, executable: SharedExecutable, clock: Clock) -> int:
    """The time of the shortest of a few runs, in ns, on the first sample that the model accepts; 0 if it
    accepts none.
    """
    for inputs in trial_inputs(config, folder):
        times: list[int] = []
        try:
            for _ in range(_NUM_RUNS):
                started_ns = clock.now_ns()
                executable.run(inputs, list(config.outputs))
                times.append(clock.now_ns() - started_ns)
        except InvalidArgumentError:
            continue
        return min(times)
    return 0
