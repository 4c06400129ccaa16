"""Decides whether a compressed model is accurate enough to be written, and builds the notes of its report."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from triune.api.compressing.forms import PROGRAMS
from triune.api.timing import Speed
from triune.compression.accuracy import Accuracy, OutputAccuracy, percent
from triune.compression.activations import batched_of
from triune.compression.options import Activations, Method, Options, WeightForm
from triune.compression.plan import Plan
from triune.compression.report import Layer, Timed
from triune.compression.samples import Samples
from triune.compression.search import Found, agreement_of
from triune.core.datatypes import Array
from triune.core.errors import UnsupportedError


def require_agreement(
    found: Found, outputs: Sequence[OutputAccuracy], least: float, *, is_searched: bool, force: bool
) -> None:
    """Raise UnsupportedError if an output agrees less than `least`."""
    if force or agreement_of(outputs) >= least:
        return
    worst = min(outputs, key=lambda each: each.agreement)
    if worst.num_elements > worst.num_compared == 0:
        raise UnsupportedError(
            f"the source's output '{worst.name}' is NaN or infinite throughout on all samples, so that there is "
            "nothing to compare it with: give other samples (--calibrate), or write it as it is with --force"
        )
    has = (
        f"output '{worst.name}' agrees by {percent(worst.agreement)} ({worst.measure})"
        if worst.is_finite
        else f"output '{worst.name}' has NaN or infinities"
    )
    if is_searched:
        num_layers = len(found.returned.keys() | found.forms.keys())
        raise UnsupportedError(
            f"an agreement of {percent(least)} cannot be kept: with {len(found.returned)} of {num_layers} layers in "
            f"higher precision {has}; ask for less, for a form of more bits, or write it as it is with --force"
        )
    raise UnsupportedError(
        f"{has}, where {least:.0%} is the least: nothing is written. Keep sensitive layers precise (--keep-accuracy "
        f"{least:.0%}), take a form of more bits, give samples of real inputs (--calibrate), or write it as it is with "
        "--force"
    )


def layers_of(plan: Plan, found: Found) -> list[Layer]:
    """For the report: the form and the error of each layer of a compressed model."""
    operators = {each.name: each.reader for each in plan.weights}
    operators |= {node.name: node.op_type for node in plan.source.graph.node if node.name not in operators}
    layers: list[Layer] = []
    for name in plan.layers:
        change = found.built.changes.get(name)
        form = found.forms.get(name)
        note = "" if change is None else change.note
        if name in found.returned:
            note = "; ".join(filter(None, (f"went back to {found.returned[name]}: it is sensitive", note)))
        layers.append(
            Layer(
                name,
                operators.get(name, ""),
                "floats" if form is None else form.value,
                None if change is None else change.sqnr_db,
                found.sensitivity.get(name),
                note,
            )
        )
    return layers


def notes_of(options: Options, target: Path, plan: Plan, found: Found, samples: Samples) -> list[str]:
    """Notes on a compression for the user, such as which layers kept a higher precision."""
    notes: list[str] = []
    if options.method.is_awq or options.method is Method.SMOOTHQUANT:
        gains = [1 - each.after / each.before for each in plan.scaled.values()]
        mean = f", of whose errors it takes {np.mean(gains):.0%} away in the mean" if gains else ""
        notes.append(f"{options.method.value} scales the inputs of {len(gains)} products or groups of them{mean}")
    if options.method is not Method.NEAREST and samples.is_made_up:
        notes.append(f"{options.method.value} learned from made-up inputs: give samples of real ones (--calibrate)")
    learns = options.method is not Method.NEAREST or options.activations is Activations.INT8
    if learns and not samples.is_made_up and samples.calibration is samples.comparison:
        notes.append(
            f"the same {len(samples.comparison)} samples are for calibration and comparison, so that the agreement "
            "says little of other inputs: give 8 or more"
        )
    if plan.unranged:
        notes.append(
            f"{len(plan.unranged)} products multiply in floats, since what they read or compute is 0 in all samples, "
            f"and so has no range: {', '.join(plan.unranged)}"
        )
    notes += [
        f"output '{each.name}' has no elements on all samples: it was not compared"
        for each in found.outputs
        if not each.num_elements
    ]
    if found.returned:
        notes.append(f"{len(found.returned)} layers went back to a higher precision: {', '.join(found.returned)}")
    if samples.is_made_up and options.activations is Activations.INT8:
        notes.append(
            "the ranges of activations are those of made-up inputs; real ones may be larger, and are clipped then: "
            "give samples with --calibrate"
        )
    if options.activations is not None and (batched := batched_of(plan.source)):
        notes.append(
            f"{len(batched)} MatMuls of many matrices at once multiply in floats, since ONNX Runtime has no such "
            f"product of integers: {', '.join(batched)}"
        )
    if options.has_zeros and options.weights is not WeightForm.SPARSE and target.suffix in PROGRAMS:
        notes.append("a 0 among integers takes the bits of an integer: the program is no smaller for its zeros")
    if options.has_zeros and target.suffix == ".onnx":
        notes.append(
            "ONNX has no form for zeros that a runtime here computes faster with or reads from fewer bytes: ONNX "
            "Runtime and OpenVINO multiply them like other numbers. A .mlpackage or .aimodel stores a bit for each"
        )
    return notes


def timed(speed: Speed, expected: Mapping[str, Array]) -> Timed:
    """The figures of a unit for the report: its speed, and how far its outputs for one sample agree with `expected`."""
    agreement: float | None = None
    if speed.outputs.keys() >= expected.keys():
        accuracy = Accuracy()
        accuracy.add(expected, {name: np.asarray(speed.outputs[name]) for name in expected})
        agreement = agreement_of(accuracy.outputs())
    return Timed(
        speed.unit.value,
        speed.latency_ms,
        speed.rows_per_second,
        speed.batch,
        speed.joules_per_row,
        speed.unavailable,
        agreement,
    )
