"""Compare the outputs of a model's units with those of `cpu`, find the probable reason of errors, and store the
verdict.
"""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from triune.backends.gate.cause import likely_cause
from triune.backends.gate.compare import compare, joined
from triune.backends.gate.kept import KeptVerdicts
from triune.backends.gate.sample import Sample
from triune.backends.tensor.compile import compile_one
from triune.backends.tensor.executable import SharedExecutable
from triune.config.model_config import ModelConfig
from triune.config.parameters import TOLERANCE_PARAMETER, tolerance_of
from triune.config.placement import Recipe, recipe_on
from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.runtime import Executable
from triune.core.units import Unit
from triune.core.verdict import Verdict
from triune.runtimes.machine import Machine

_log = logging.getLogger(__name__)

_NUM_SAMPLES: Final = 3
"""The number of samples to compare, among those that the model accepts."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A version whose units are to be compared with `cpu`.

    Attributes:
        config: the version's configuration. Its backend is the one that loads `path`.
        path: the file that the executables were compiled from.
        samples: inputs that the model may accept, the most likely ones first.
        load_key: the key under which verdicts are stored (`config.load_key`).
        scores: the outputs whose last axis has a score for each class.
        known: the verdicts on units whose executables the build took over from an earlier build.
    """

    config: ModelConfig
    path: Path
    samples: Iterable[Sample]
    load_key: str
    scores: Collection[str] = ()
    known: Mapping[Unit, Verdict] = field(default_factory=dict[Unit, Verdict])


class Gate:
    """Compares the units of models with `cpu`."""

    def __init__(self, machine: Machine, kept: KeptVerdicts | None) -> None:
        """Args:
        machine: the machine, to compile a model for `cpu` if it is not served there.
        kept: the store of verdicts; None stores none.
        """
        self._machine = machine
        self._kept = kept

    def find(self, load_key: str, recipe: Recipe) -> Verdict | None:
        """The stored verdict on an executable of this recipe, for the load with this key; None if there is none."""
        return self._kept.find(load_key, recipe) if self._kept is not None else None

    def keep(self, load_key: str, recipe: Recipe, verdict: Verdict) -> None:
        """Store the verdict on an executable of this recipe for later starts of the server."""
        if self._kept is not None:
            self._kept.keep(load_key, recipe, verdict)

    def judge(self, model: Judged, executables: Sequence[SharedExecutable]) -> dict[Unit, Verdict]:
        """The verdict on each unit except `cpu`. A unit that cannot be compared is logged and left out.

        Args:
            model: the version.
            executables: the compiled model. The first executable on each unit is judged. If none is on `cpu`, one is
                compiled temporarily.

        Raises:
            InvalidArgumentError: the config's tolerance is not a number.
            InternalError: a runtime failed.
        """
        first = {each.unit: each for each in reversed(executables)}
        verdicts: dict[Unit, Verdict] = {}
        left: dict[Unit, float] = {}
        for unit in model.config.units:
            if unit is Unit.CPU:
                continue
            tolerance = tolerance_of(model.config.parameters, first[unit].precision)
            found = model.known.get(unit) or self.find(model.load_key, first[unit].recipe)
            # A stored verdict counts only if the library has chosen the same precision now as then.
            if found is not None and (found.precision, found.tolerance) == (first[unit].precision, tolerance):
                verdicts[unit] = found
            else:
                left[unit] = tolerance
        if left:
            verdicts |= self._compare(model, first, left)
        return verdicts

    def _compare(
        self, model: Judged, first: Mapping[Unit, SharedExecutable], units: Mapping[Unit, float]
    ) -> dict[Unit, Verdict]:
        verdicts: dict[Unit, Verdict] = {}
        with ExitStack() as stack:
            try:
                truth = first.get(Unit.CPU)
                if truth is None:
                    recipe = recipe_on(Unit.CPU, self._machine.num_cores, model.config, self._machine)
                    truth = compile_one(model.path, recipe, self._machine)
                    stack.callback(truth.close)
                answers = _Answers(model.samples, truth)
                for unit, tolerance in units.items():
                    verdict = self._verdict(model, answers, truth, first[unit], tolerance)
                    verdicts[unit] = verdict
                    self.keep(model.load_key, first[unit].recipe, verdict)
            except (InvalidArgumentError, UnsupportedError) as error:
                name, missing = model.config.name, ", ".join(unit.value for unit in units if unit not in verdicts)
                _log.warning("model '%s': error of %s against cpu is unavailable: %s", name, missing, error)
        return verdicts

    def _verdict(
        self,
        model: Judged,
        answers: "_Answers",
        truth: SharedExecutable,
        executable: SharedExecutable,
        tolerance: float,
    ) -> Verdict:
        """Compare the outputs of both executables on the first samples, at most `_NUM_SAMPLES`, that both accept.
        Raises InvalidArgumentError if there are none.
        """

        def judged(sample: Sample, expected: Mapping[str, Array], on: SharedExecutable) -> Verdict:
            found, precision = sample(on), executable.precision
            return compare(expected, found, precision=precision, tolerance=tolerance, scores=model.scores)

        verdicts: list[Verdict] = []
        for sample, expected in answers:
            try:
                verdict = judged(sample, expected, executable)
            except InvalidArgumentError as error:
                # Skip this sample: `cpu` accepts it, but the unit does not.
                answers.refusal = error
                continue
            # If a second run on `cpu` differs from the first one, too, the model draws random numbers, and the units
            # cannot be compared.
            if verdict.excess and judged(sample, expected, truth).excess:
                verdict = replace(verdict, excess="")
            if verdict.excess:
                cause = likely_cause(model.path, sample, truth, executable, tolerance, self._machine)
                return joined([replace(verdict, cause=cause), *verdicts])
            verdicts.append(verdict)
            if len(verdicts) == _NUM_SAMPLES:
                break
        if not verdicts:
            raise InvalidArgumentError(
                f"the model accepts none of the sample inputs: {answers.refusal}; give it a model_warmup sample"
            )
        return joined(verdicts)


def describe_excess(unit: Unit, reason: str) -> str:
    """The message that says why a model is not served on a unit, with the remedy."""
    return (
        f"its answers on '{unit.value}' are not those of 'cpu': {reason}; convert it in fp32, name other units, or "
        f"allow more by the parameter '{TOLERANCE_PARAMETER}'"
    )


def describe_shortfall(verdicts: Mapping[Unit, Verdict]) -> str:
    """Why a model is not served on some units of its config; empty if it is served on all."""
    return "; ".join(
        f"not on {unit.value}: {describe_excess(unit, each.reason)}" for unit, each in verdicts.items() if each.excess
    )


def leave_out(
    verdicts: Mapping[Unit, Verdict], config: ModelConfig, executables: Sequence[SharedExecutable]
) -> tuple[tuple[Unit, ...], list[SharedExecutable]]:
    """The units whose outputs are right, and their executables. The log has the reasons for the others.

    Raises:
        UnsupportedError: the outputs of all units are wrong.
    """
    refused = {unit: each.reason for unit, each in verdicts.items() if each.excess}
    for unit, reason in refused.items():
        _log.warning("model '%s' is not served on %s: %s", config.name, unit.value, describe_excess(unit, reason))
    units = tuple(unit for unit in config.units if unit not in refused)
    if not units:
        raise UnsupportedError("; ".join(describe_excess(unit, reason) for unit, reason in refused.items()))
    return units, [each for each in executables if each.unit not in refused]


class _Answers:
    """The samples that a model accepts on `cpu`, and its outputs for them, computed when first needed.

    Attributes:
        refusal: why the model refused the last sample that it did not accept.
    """

    def __init__(self, samples: Iterable[Sample], truth: Executable) -> None:
        self.refusal = InvalidArgumentError("it takes no input")
        self._left = iter(samples)
        self._truth = truth
        self._known: list[tuple[Sample, Mapping[str, Array]]] = []

    def __iter__(self) -> Iterator[tuple[Sample, Mapping[str, Array]]]:
        yield from self._known
        for sample in self._left:
            try:
                self._known.append((sample, sample(self._truth)))
            except InvalidArgumentError as error:
                self.refusal = error
                continue
            yield self._known[-1]
