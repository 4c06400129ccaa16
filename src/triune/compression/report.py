"""The report of a compression: sizes, times and agreement, as JSON and as an HTML page."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from triune.compression.accuracy import OutputAccuracy, TextAccuracy
from triune.compression.found import Kept
from triune.pages.page import page


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of the model.

    Attributes:
        name: the weight, or the node that multiplies it.
        operator: the operator that reads it.
        form: its present form, "floats" if it was not compressed.
        weights_db: the signal-to-quantization-noise ratio of its weights, in dB; None if another library quantized
            them.
        output_db: the signal-to-noise ratio of the worst output, in dB, if only this layer is compressed; None if that
            was not tried.
        note: how it differs from the requested form, and why.
    """

    name: str
    operator: str
    form: str
    weights_db: float | None = None
    output_db: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Timed:
    """Figures of one unit: see `api.timing.Speed`. `agreement` compares its outputs for one sample with the outputs of
    the source in fp32; None if they have no output in common.
    """

    unit: str
    latency_ms: float | None
    rows_per_second: float | None
    batch: int
    joules_per_row: float | None
    unavailable: str
    agreement: float | None = None


@dataclass(frozen=True, slots=True)
class Method:
    """A method of choosing the levels of integer weights (`options.Method`) that was tried.

    Attributes:
        name: the name of the method.
        agreement: the agreement of the model with all layers compressed by this method, 0 to 1.
        note: the method's figures in words.
        is_kept: whether the result was compressed by this method.
    """

    name: str
    agreement: float
    note: str
    is_kept: bool


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of a compression.

    Attributes:
        source, target: the names of the files.
        form: the form in words.
        source_bytes, target_bytes: the sizes of source and target, with weights in other files.
        samples: a description of the samples on which source and target were compared.
        is_made_up: whether these samples were made up.
        outputs: the accuracy of each output.
        agreement: the agreement of the output that agrees least, 0 to 1.
        least: the agreement that was asked for, or else the one below which the result is written only if forced.
        layers: the layers.
        kept: weights that cannot be compressed, with reasons.
        before, after: figures of each unit with the source and with the target; empty if nothing was measured.
        notes: what else a reader should know.
        methods: the methods that were tried, if there were several.
        text: the accuracy of a decoder on text; None for other models.
    """

    source: str
    target: str
    form: str
    source_bytes: int
    target_bytes: int
    samples: str
    is_made_up: bool
    outputs: Sequence[OutputAccuracy]
    agreement: float
    least: float
    layers: Sequence[Layer]
    kept: Sequence[Kept]
    before: Sequence[Timed] = ()
    after: Sequence[Timed] = ()
    notes: Sequence[str] = field(default_factory=tuple)
    methods: Sequence[Method] = ()
    text: TextAccuracy | None = None

    @property
    def num_kept_layers(self) -> int:
        """The number of layers whose form is not the requested one: they are in floats, or in another precision."""
        most = self.form.split(",", maxsplit=1)[0]
        return sum(each.form != most for each in self.layers)


def as_json(report: Report) -> Mapping[str, Any]:
    """The report as values of JSON. Infinity, which JSON lacks, is the text "Infinity"."""
    return {
        "source": report.source,
        "target": report.target,
        "form": report.form,
        "source_bytes": report.source_bytes,
        "target_bytes": report.target_bytes,
        "samples": report.samples,
        "made_up": report.is_made_up,
        "agreement": report.agreement,
        "least": report.least,
        "outputs": [_output(each) for each in report.outputs],
        "layers": [
            {
                "name": each.name,
                "operator": each.operator,
                "form": each.form,
                "weights_db": _number(each.weights_db),
                "output_db": _number(each.output_db),
                "note": each.note,
            }
            for each in report.layers
        ],
        "kept": [{"name": each.name, "elements": each.num_elements, "reason": each.reason} for each in report.kept],
        "units": [_unit(one, other) for one, other in zip(report.before, report.after, strict=True)],
        "notes": list(report.notes),
        "methods": [
            {"name": each.name, "agreement": each.agreement, "note": each.note, "kept": each.is_kept}
            for each in report.methods
        ],
        "text": None if report.text is None else _text(report.text),
    }


def page_of(report: Report) -> str:
    """The report as one page of HTML that needs no other file."""
    return page("triune.compression", "Compression", as_json(report))


def _output(each: OutputAccuracy) -> Mapping[str, Any]:
    return {
        "name": each.name,
        "agreement": each.agreement,
        "measure": each.measure,
        "cosine": each.cosine,
        "top1": each.top1,
        "equal": each.equal,
        "largest": each.largest,
        "largest_error": each.largest_error,
        "mean_error": each.mean_error,
        "sqnr_db": _number(each.sqnr_db),
        "finite": each.is_finite,
    }


def _text(each: TextAccuracy) -> Mapping[str, Any]:
    return {
        "tokens": each.num_tokens,
        "perplexity_before": each.perplexity_before,
        "perplexity": _number(each.perplexity),
        "top1": each.top1,
        "divergence": _number(each.divergence),
        "finite": each.is_finite,
    }


def _unit(before: Timed, after: Timed) -> Mapping[str, Any]:
    return {"unit": before.unit, "before": _timed(before), "after": _timed(after)}


def _timed(each: Timed) -> Mapping[str, Any]:
    return {
        "latency_ms": each.latency_ms,
        "rows_per_second": each.rows_per_second,
        "batch": each.batch,
        "joules_per_row": each.joules_per_row,
        "unavailable": each.unavailable,
        "agreement": each.agreement,
    }


def _number(value: float | None) -> float | str | None:
    if value is None or math.isfinite(value):
        return value
    return "Infinity" if value > 0 else "-Infinity"
