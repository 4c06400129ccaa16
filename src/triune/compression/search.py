"""Find the fewest layers that must stay precise, so that the outputs agree with the source's as far as the user asked
for.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from triune.compression.accuracy import Accuracy, OutputAccuracy
from triune.compression.ladder import fewest, rungs_after, steps_of
from triune.compression.options import WeightForm
from triune.compression.plan import Built, Plan
from triune.compression.rewrite import Change
from triune.core.datatypes import Array
from triune.graph.custom.session import session_of

Tell: TypeAlias = Callable[[str], None]
"""Receives progress messages."""

Forms: TypeAlias = Mapping[str, WeightForm]
"""The form of each layer that is compressed, by name."""

_SAMPLES_OF_A_LAYER: Final = 4
"""How many samples each single layer is tried on."""


class Comparison:
    """The outputs of the source on samples, with which the outputs of compressed models are compared.

    Attributes:
        expected: the outputs of the source by name, for each sample.
    """

    def __init__(self, plan: Plan, samples: Sequence[Mapping[str, Array]]) -> None:
        """Run the source model. Raises InvalidArgumentError if it does not take a sample."""
        self._plan = plan
        self._samples = samples
        model = type(plan.source)()
        model.CopyFrom(plan.source)
        session = session_of(model, "the model", plan.ops)
        self.expected: Final = [session.run(sample, {})[0] for sample in samples]

    def outputs_of(self, built: Built, most: int | None = None) -> Sequence[OutputAccuracy]:
        """The accuracy of a built model's outputs against those of the source, on the first `most` samples."""
        model = type(built.model)()
        model.CopyFrom(built.model)
        session = session_of(model, "the compressed model", self._plan.ops)
        accuracy = Accuracy()
        for sample, expected in list(zip(self._samples, self.expected, strict=True))[:most]:
            accuracy.add(expected, session.run(sample, {})[0])
        return accuracy.outputs()


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a search.

    Attributes:
        forms: the form of each compressed layer.
        built: the compressed model.
        outputs: the accuracy of each output of the compressed model.
        returned: the layers that went back to a higher precision, and that precision, most sensitive first.
        sensitivity: for each layer the signal-to-noise ratio of the worst output in dB, if this layer alone is
            compressed; empty if nothing was searched.
        holds: whether the outputs agree as far as was asked for.
    """

    forms: Forms
    built: Built
    outputs: Sequence[OutputAccuracy]
    returned: Mapping[str, str]
    sensitivity: Mapping[str, float]
    holds: bool


def agreement_of(outputs: Sequence[OutputAccuracy]) -> float:
    """The agreement of the output that agrees worst."""
    return min((each.agreement for each in outputs), default=1.0)


def search(plan: Plan, form: WeightForm, comparison: Comparison, least: float | None, tell: Tell) -> Found:
    """Compress all layers; if the outputs agree less than `least`, return layers to a higher precision, fewest steps
    first, until they do.

    The layer that adds the most noise to the outputs goes one form up (int4, int8, 16 bits, the source's floats); then
    again the layer with the most noise, which may be the same one. The same arguments give the same result.

    Args:
        plan: the model, and which of its layers can be compressed.
        form: the form that layers have at first.
        comparison: what the outputs are compared with.
        least: the least agreement of each output, 0 to 1; None for no search.
        tell: receives progress messages.
    """
    tell("compressing")
    built = plan.build(plan.everything(form))
    outputs = comparison.outputs_of(built)
    first = Found(plan.everything(form), built, outputs, {}, {}, holds=least is None or agreement_of(outputs) >= least)
    if least is None or first.holds:
        return first
    sensitivity = sensitivities(plan, form, comparison, tell)
    rungs = {name: plan.rungs(name) for name in plan.layers}
    steps = steps_of(_noise(plan, rungs, sensitivity, built))

    def attempt(count: int) -> Found:
        tell(f"{count} of {len(steps)} steps to a higher precision")
        after = rungs_after(steps[:count])
        forms = {name: kind for name in plan.layers if (kind := rungs[name][after.get(name, 0)]) is not None}
        built = plan.build(forms)
        outputs = comparison.outputs_of(built)
        # The most sensitive layers come first.
        names = sorted(after, key=lambda name: sensitivity[name])
        returned = {name: _word(rungs[name][after[name]]) for name in names}
        return Found(forms, built, outputs, returned, sensitivity, holds=agreement_of(outputs) >= least)

    # Do not take all steps: the last one would leave no layer compressed, and nothing to write.
    return fewest(len(steps) - 1, attempt) if len(steps) > 1 else replace(first, sensitivity=sensitivity)


def _word(form: WeightForm | None) -> str:
    return "floats" if form is None else form.value


def _noise(
    plan: Plan, rungs: Mapping[str, Sequence[WeightForm | None]], sensitivity: Mapping[str, float], built: Built
) -> dict[str, list[float]]:
    """The power of the noise that each layer adds to the outputs in each of its forms, relative to the outputs' power.

    The noise is measured for the first form. For the others it is scaled by the ratio of the weights' errors: rounding
    errors of one weight in two forms differ mainly in size.
    """
    now = {name: 10 ** (-decibels / 10) for name, decibels in sensitivity.items()}
    found = {name: [noise] for name, noise in now.items()}
    before = {name: change.sqnr_db for name, change in built.changes.items()}
    for rung in range(1, max(map(len, rungs.values()))):
        forms = {name: form for name, each in rungs.items() if rung < len(each) and (form := each[rung]) is not None}
        changes: Mapping[str, Change] = plan.build(forms).changes if forms else {}
        for name, each in rungs.items():
            if rung < len(each):
                less = before[name] - changes[name].sqnr_db if name in forms else -math.inf
                found[name].append(now[name] * 10 ** (less / 10) if less < math.inf else now[name])
    return found


def sensitivities(plan: Plan, form: WeightForm, comparison: Comparison, tell: Tell) -> dict[str, float]:
    """For each layer, the signal-to-noise ratio of the worst output, in dB, if only this layer is compressed."""
    found: dict[str, float] = {}
    for number, name in enumerate(plan.layers):
        tell(f"layer {number + 1} of {len(plan.layers)} alone")
        outputs = comparison.outputs_of(plan.build({name: form}), _SAMPLES_OF_A_LAYER)
        found[name] = min((each.sqnr_db for each in outputs), default=float("inf"))
    return found
