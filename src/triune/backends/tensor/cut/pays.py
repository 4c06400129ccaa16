"""Decides whether a cut is faster: its time is compared with the whole model's on the best single unit, both measured
at the load.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Final

from triune.backends.attempt import Attempt
from triune.backends.gate.compare import compare as compare_answers
from triune.backends.tensor.compile import compile_one
from triune.backends.tensor.cut.cut import Cut
from triune.backends.tensor.cut.graph import CutGraph
from triune.backends.tensor.executable import SharedExecutable
from triune.backends.tensor.samples import scores_of
from triune.config.model_config import ModelConfig
from triune.config.parameters import tolerance_of
from triune.config.placement import recipe_on
from triune.core.datatypes import Array
from triune.core.errors import TriuneError
from triune.core.runtime import Executable
from triune.core.units import Unit
from triune.runtimes.machine import Machine

_SECONDS: Final = 1.0
_MIN_RUNS: Final = 3
_MAX_RUNS: Final = 50


@dataclass(frozen=True)
class Comparison:
    """The times of a cut model, and of the whole model on each single unit.

    Attributes:
        cut_ms: the time of a call of the cut model or, in a pipeline, the time between two results.
        wholes: for each single unit, the time of a call of the whole model in ms, and its executable; the fastest unit
            first.
        refusals: the units that cannot run the whole model, with the reason.
    """

    cut_ms: float
    wholes: Sequence[tuple[SharedExecutable, float]]
    refusals: Sequence[str]

    @property
    def is_worth_it(self) -> bool:
        """Whether the cut is faster than the whole model on the best single unit."""
        return not self.wholes or self.cut_ms < self.wholes[0][1]

    def __str__(self) -> str:
        singles = ", ".join(f"{each.unit.value} alone {ms:.3g} ms" for each, ms in self.wholes)
        return "; ".join([f"measured: cut {self.cut_ms:.3g} ms, {singles or 'no unit alone'}", *self.refusals])

    def close(self, but: SharedExecutable | None = None) -> None:
        """Close the executables of the whole models, except `but`."""
        for each, _ in self.wholes:
            if each is not but:
                each.close()


def compare(
    cut: Cut, units: Sequence[Unit], graph: CutGraph, config: ModelConfig, machine: Machine, attempt: Attempt
) -> Comparison:
    """Measure a cut, and the whole model on single units, on the same sample input.

    Args:
        cut: the cut.
        units: the units to compare with.
        graph: the graph, with the sample and the right answers.
        config: the model's configuration.
        machine: the machine with the runtimes.
        attempt: cancels the build.

    Raises:
        UnavailableError: the build was cancelled.
    """
    outputs = list(config.outputs)
    wholes: list[tuple[SharedExecutable, float]] = []
    refusals: list[str] = []
    for unit in units:
        whole = whole_on(unit, graph, config, machine, attempt)
        if isinstance(whole, str):
            refusals.append(whole)
        else:
            wholes.append((whole, period_ms([whole], graph.sample, outputs)))
    ms = period_ms(cut.lend(), graph.sample, outputs)
    return Comparison(ms, sorted(wholes, key=lambda each: each[1]), refusals)


def whole_on(
    unit: Unit, graph: CutGraph, config: ModelConfig, machine: Machine, attempt: Attempt
) -> SharedExecutable | str:
    """Compile and measure the whole model on a unit. Otherwise return why the unit does not run it, or computes it
    wrongly.

    Raises:
        UnavailableError: the build was cancelled.
    """
    attempt.check()
    with ExitStack() as undo:
        try:
            whole = compile_one(config.path, recipe_on(unit, machine.num_cores, config, machine), machine)
            undo.callback(whole.close)
            with attempt.holding(whole):
                found = whole.run(graph.sample, list(config.outputs))
        except TriuneError as error:
            if attempt.is_given_up:
                raise
            return f"{unit.value} refuses the whole: {error}"
        if unit is not Unit.CPU and not graph.is_random:
            expected = {name: graph.values[name] for name in config.outputs}
            tolerance = tolerance_of(config.parameters, whole.precision)
            verdict = compare_answers(
                expected, found, precision=whole.precision, tolerance=tolerance, scores=scores_of(config)
            )
            if verdict.excess:
                return f"{unit.value} computes the whole wrongly: {verdict.excess}"
        undo.pop_all()
        return whole


def period_ms(executables: Sequence[Executable], inputs: Mapping[str, Array], outputs: Sequence[str]) -> float:
    """The mean time in milliseconds between the ends of two calls, if each executable always has one call running. For
    a single executable, it is the median time of a call. Raises the errors of `Executable.run`.
    """
    if len(executables) == 1:
        return median(_times(executables[0], inputs, outputs))
    for each in executables:
        each.run(inputs, outputs)
    begun = time.perf_counter()

    def count(executable: Executable) -> int:
        num = 0
        while num < _MIN_RUNS or time.perf_counter() - begun < _SECONDS:
            executable.run(inputs, outputs)
            num += 1
        return num

    with ThreadPoolExecutor(len(executables), "pipeline trial") as pool:
        total = sum(pool.map(count, executables))
    return 1e3 * (time.perf_counter() - begun) / total


def _times(executable: Executable, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[float]:
    executable.run(inputs, outputs)
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < _MAX_RUNS and (len(times) < _MIN_RUNS or time.perf_counter() - begun < _SECONDS):
        started = time.perf_counter()
        executable.run(inputs, outputs)
        times.append(1e3 * (time.perf_counter() - started))
    return times
