"""Find the fewest layers that must stay precise, so that the outputs agree as far as is asked for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from triune.compression.accuracy import Accuracy, OutputAccuracy
from triune.compression.options import WeightForm
from triune.compression.plan import Built, Plan
from triune.core.datatypes import Array
from triune.graph.session import GraphSession

Tell: TypeAlias = Callable[[str], None]
"""Receives progress messages."""

Forms: TypeAlias = Mapping[str, WeightForm]
"""The form of each layer that is compressed, by name."""

_SAMPLES_OF_A_LAYER: Final = 4
"""How many samples each single layer is tried on."""


class Comparison:
    """The outputs of a model on samples, to which others are compared."""

    def __init__(self, plan: Plan, samples: Sequence[Mapping[str, Array]]) -> None:
        """Run the source. Raises InvalidArgumentError if it takes a sample not."""
        self._plan = plan
        self._samples = samples
        model = type(plan.source)()
        model.CopyFrom(plan.source)
        session = GraphSession(model, "the model")
        self.expected: Final = [session.run(sample, {})[0] for sample in samples]

    def outputs_of(self, built: Built, most: int | None = None) -> Sequence[OutputAccuracy]:
        """How far the outputs of a built model are from those of the source, on the first `most` samples."""
        model = type(built.model)()
        model.CopyFrom(built.model)
        session = GraphSession(model, "the compressed model")
        accuracy = Accuracy()
        for sample, expected in list(zip(self._samples, self.expected, strict=True))[:most]:
            accuracy.add(expected, session.run(sample, {})[0])
        return accuracy.outputs()


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a search.

    Attributes:
        forms: the form of each compressed layer.
        built: the model.
        outputs: its accuracy.
        returned: the layers that went back to a higher precision, and to which, most sensitive first.
        sensitivity: for each layer the signal to noise ratio of the worst output in dB, if this layer alone is
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
    """The agreement of the output that agrees least."""
    return min((each.agreement for each in outputs), default=1.0)


def search(plan: Plan, form: WeightForm, comparison: Comparison, least: float | None, tell: Tell) -> Found:
    """Compress all layers; if the outputs agree less than `least`, return the most sensitive ones to a higher
    precision, fewest first, until they do.

    int4 goes back to int8 first; if all layers in int8 do not suffice, from int8 to the source's floats. The same
    arguments give the same result.

    Args:
        plan: the model.
        form: the form of the layers.
        comparison: what the outputs are compared with.
        least: the least agreement of each output, 0 to 1; None for no search.
        tell: receives progress messages.
    """
    tell("compressing")
    built = plan.build(plan.everything(form))
    outputs = comparison.outputs_of(built)
    if least is None or agreement_of(outputs) >= least:
        return Found(plan.everything(form), built, outputs, {}, {}, holds=True)
    del built
    sensitivity = sensitivities(plan, form, comparison, tell)
    order = sorted(plan.layers, key=lambda name: (sensitivity[name], plan.layers.index(name)))
    steps = [(form, None)] if form is not WeightForm.INT4 else [(form, WeightForm.INT8), (WeightForm.INT8, None)]
    found: Found | None = None
    for low, high in steps:
        found = _fewest(plan, order, low, high, comparison, least, sensitivity, tell)
        if found.holds:
            break
    assert found is not None
    return found


def sensitivities(plan: Plan, form: WeightForm, comparison: Comparison, tell: Tell) -> dict[str, float]:
    """The signal to noise ratio of the worst output, in dB, with each layer compressed alone."""
    found: dict[str, float] = {}
    for number, name in enumerate(plan.layers):
        tell(f"layer {number + 1} of {len(plan.layers)} alone")
        outputs = comparison.outputs_of(plan.build({name: form}), _SAMPLES_OF_A_LAYER)
        found[name] = min((each.sqnr_db for each in outputs), default=float("inf"))
    return found


def _fewest(
    plan: Plan,
    order: Sequence[str],
    low: WeightForm,
    high: WeightForm | None,
    comparison: Comparison,
    least: float,
    sensitivity: Mapping[str, float],
    tell: Tell,
) -> Found:
    """The fewest layers at the beginning of `order` that must have the form `high`, by doubling and then halving."""

    def attempt(count: int) -> Found:
        tell(f"{count} of {len(order)} layers in higher precision")
        forms = dict.fromkeys(order[count:], low)
        if high is not None:
            forms |= dict.fromkeys(order[:count], high)
        built = plan.build(forms)
        outputs = comparison.outputs_of(built)
        word = high.value if high is not None else "floats"
        returned = dict.fromkeys(order[:count], word)
        return Found(forms, built, outputs, returned, sensitivity, holds=agreement_of(outputs) >= least)

    # Without any compressed layer there is nothing to write.
    most = len(order) if high is not None else len(order) - 1
    too_few, count = 0, min(1, most)
    found = attempt(count)
    while not found.holds and count < most:
        too_few, count = count, min(2 * count, most)
        found = attempt(count)
    if not found.holds:
        return found
    while count - too_few > 1:
        middle = (too_few + count) // 2
        tried = attempt(middle)
        if tried.holds:
            found, count = tried, middle
        else:
            too_few = middle
    return found
