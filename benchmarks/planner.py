"""Fit the planner's cost model to two thirds of published measurements, and score it on the other third.

Usage: planner.py PUBLISHED.csv [--fit CONSTANTS.toml]

Without --fit it scores the constants that Triune comes with. Rows are in thirds by a hash of model and chip. --fit fits
Triune's constants without looking at the first third, and for the errors that plans show it also fits twice more, with
each other third held out in turn. Deterministic; --fit takes some ten minutes.
"""

import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from triune.core.units import Unit
from triune.hardware.chips import chip
from triune.planning.candidates import Request
from triune.planning.constants import Constants, Score, constants, parse_constants
from triune.planning.planner import plan
from triune.planning.published.decoders import decoder_step
from triune.planning.published.encoders import bert, whisper_encoder
from triune.planning.published.measurements import LeftOut, Measurement, read_measurements
from triune.planning.published.predict import Predictor
from triune.planning.published.vision import resnet_50
from triune.planning.units import target_of

BEST_PUBLISHED = 0.31
"""The median error of the best published analytic model (arXiv:2606.22283, chapter 18: 68 graphs on one M1)."""

# Where the search begins, and what it is drawn to: figures of the notes on the hardware, and round numbers.
PRIOR: Mapping[str, float] = {
    "ane.launch_ms_old": 0.2,
    "ane.launch_ms_new": 0.1,
    "ane.op_ms": 0.001,
    "ane.efficiency_conv": 0.9,
    "ane.efficiency_depthwise": 0.2,
    "ane.efficiency_matmul": 0.6,
    "ane.efficiency_product": 0.4,
    "ane.half_rows": 32,
    "ane.half_columns": 32,
    "ane.weights_gb_per_s_base": 62,
    "ane.weights_gb_per_s_wide": 120,
    "ane.weights_gb_per_s_phone": 50,
    "ane.weights_g_per_s": 50,
    "ane.memory_gb_per_s": 40,
    "ane.chip_gb_per_s": 150,
    "ane.knee_mb": 2.3,
    "ane.int8_speedup": 1.8,
    "ane.watts": 2.5,
    "ane.pj_per_flop": 0.2,
    "ane.pj_per_byte": 20,
    "gpu.launch_ms": 0.2,
    "gpu.op_ms": 0.01,
    "gpu.efficiency_conv": 0.6,
    "gpu.efficiency_depthwise": 0.2,
    "gpu.efficiency_matmul": 0.8,
    "gpu.efficiency_product": 0.5,
    "gpu.half_rows": 16,
    "gpu.half_columns": 32,
    "gpu.memory_share": 0.95,
    "gpu.memory_half_gb_per_s": 4000,
    "gpu.chip_share": 3,
    "gpu.knee_mb": 8,
    "gpu.accelerator_speedup": 4,
    "gpu.watts": 2,
    "gpu.pj_per_flop": 5,
    "gpu.pj_per_byte": 50,
    "amx.tflops_per_core": 0.25,
    "amx.watts_per_core": 2.5,
    "cpu.tflops_per_core": 0.1,
    "cpu.watts_per_core": 4,
    "cpu.efficiency_conv": 0.7,
    "cpu.efficiency_depthwise": 0.2,
    "cpu.efficiency_matmul": 0.8,
    "cpu.efficiency_product": 0.7,
    "cpu.half_rows": 8,
    "cpu.half_columns": 16,
    "cpu.gb_per_s_per_core": 20,
    "cpu.knee_mb": 8,
    "cpu.op_ms": 0.002,
    "cpu.pj_per_byte": 50,
}
NOT_FITTED = frozenset({"cpu.tflops_per_core", "cpu.watts_per_core", "amx.watts_per_core", "cpu.pj_per_byte"})
"""No row tells these: 4 NEON pipes of 4 fp32 multiply-adds at 3.2 GHz a core, and watts of Apple's CPUs as claimed."""

Errors = Mapping[int, tuple[float, float]]
"""By row, what was predicted and what was measured."""

_PULL = 0.02
"""How strongly a constant is drawn to where the search begins, per squared natural logarithm of their ratio."""


def fit(rows: Sequence[Measurement], predictor: Predictor) -> dict[str, float]:
    """Search the constants with the least mean of |log(predicted/measured)|: one after the other, by smaller steps."""
    numbers = dict(PRIOR)

    def loss(numbers: Mapping[str, float]) -> float:
        given = Constants(numbers, (), "")
        errors = [abs(math.log(predictor.predict(each, given) / each.value)) for each in rows]
        pull = sum(math.log(numbers[name] / PRIOR[name]) ** 2 for name in numbers)
        return float(np.mean(errors)) + _PULL * pull / len(rows) * 10

    best = loss(numbers)
    for step in (0.5, 0.25, 0.12, 0.06, 0.03):
        for _ in range(6):
            before = best
            for name in sorted(numbers.keys() - NOT_FITTED):
                for factor in (math.exp(step), math.exp(-step)):
                    while True:
                        tried = {**numbers, name: numbers[name] * factor}
                        if "efficiency" in name and tried[name] > 1:
                            break
                        found = loss(tried)
                        if found >= best - 1e-9:
                            break
                        numbers, best = tried, found
            if before - best < 1e-4:
                break
        print(f"step {step}: {best:.4f}", file=sys.stderr)
    return numbers


def score(kind: str, group: str, rows: Sequence[Measurement], errors: Errors) -> Score:
    """The errors of some rows."""
    pairs = [errors[each.row] for each in rows]
    relative = [abs(predicted - measured) / measured for predicted, measured in pairs]
    rank = None
    if len(pairs) > 2:
        ranks = [np.argsort(np.argsort(each)) for each in zip(*pairs, strict=True)]
        rank = float(np.corrcoef(*ranks)[0, 1])
    return Score(kind, group, len(pairs), float(np.median(relative)), float(np.quantile(relative, 0.9)), rank)


def errors_of(rows: Sequence[Measurement], predictor: Predictor, given: Constants) -> dict[int, tuple[float, float]]:
    return {each.row: (predictor.predict(each, given), each.value) for each in rows}


def scores(rows: Sequence[Measurement], errors: Errors) -> list[Score]:
    found: list[Score] = []
    for kind in ("latency", "joules"):
        of_kind = [each for each in rows if each.kind == kind]
        for group in ("all", *dict.fromkeys(each.group for each in of_kind)):
            chosen = [each for each in of_kind if group in ("all", each.group)]
            if chosen:
                found.append(score(kind, group, chosen, errors))
    return found


def show(title: str, found: Sequence[Score]) -> None:
    print(f"\n{title}\n{'':24}rows  median  9 of 10  rank")
    for each in found:
        rank = "   -" if each.rank is None else f"{each.rank:.2f}"
        name = f"{each.kind} {each.group}"
        print(f"{name:24}{each.num_rows:4}  {each.median:6.1%}  {each.ninth:7.1%}  {rank}")


def show_worst(rows: Sequence[Measurement], predictor: Predictor, given: Constants) -> None:
    print("\nThe worst ten that were held out: predicted, measured, row")

    def factor(each: Measurement) -> float:
        return abs(math.log(predictor.predict(each, given) / each.value))

    for each in sorted(rows, key=factor, reverse=True)[:10]:
        unit = "ms" if each.kind == "latency" else "J"
        predicted = predictor.predict(each, given)
        print(f"{predicted:10.3f} {each.value:10.3f} {unit}  line {each.row}: {each.label}")


def show_left_out(left: Sequence[LeftOut]) -> None:
    print("\nRows left out:")
    for reason, count in Counter(each.reason for each in left).most_common():
        print(f"{count:4}  {reason}")


def show_table(given: Constants, name: str = "M2 Pro") -> None:
    """Models that people ask for, on each unit of a chip alone: predicted, from published shapes."""
    models = {
        "BERT base, 128 tokens": ("encoder", bert(128)),
        "GPT-2, prompt of 512": ("prefill", decoder_step("GPT-2", 512, 0)),
        "GPT-2, a token after 512": ("decode", decoder_step("GPT-2", 1, 512)),
        "ResNet-50, 224x224": ("convolution", resnet_50()),
        "Whisper base, encoder, 30 s": ("encoder", whisper_encoder("base")),
    }
    print(f"\nPredicted for {name}, fp16 (fp32 on cpu and amx), ms a call on each unit alone; no figure is measured")
    print(f"{'':30}{''.join(f'{unit.value:>9}' for unit in Unit)}   half within, nine of ten within")
    for title, (group, net) in models.items():
        request = Request(title, net.ops, group, units=tuple(Unit))
        found = {each.unit: each.ms for each in plan(request, target_of(chip(name), given), given).wholes}
        error = given.score("latency", group)
        known = f"{error.median:.0%}, {error.ninth:.0%}" if error else "not scored"
        print(f"{title:30}{''.join(f'{found[unit]:9.3g}' for unit in Unit)}   {known}")


def write(path: Path, numbers: Mapping[str, float], found: Sequence[Score], num_fitted: int) -> None:
    lines = [
        "# The constants of the cost model. Written by benchmarks/planner.py: do not edit.",
        f'source = "fitted to {num_fitted} published measurements, those of two thirds of all models and chips"',
    ]
    by_unit: dict[str, dict[str, float]] = {}
    for name, number in numbers.items():
        unit, _, key = name.partition(".")
        by_unit.setdefault(unit, {})[key] = number
    for unit, table in by_unit.items():
        lines += ["", f"[constants.{unit}]", *(f"{key} = {number:.6g}" for key, number in table.items())]
    for each in found:
        lines += ["", "[[score]]", f'kind = "{each.kind}"', f'group = "{each.group}"', f"num_rows = {each.num_rows}"]
        lines += [f"median = {each.median:.4f}", f"ninth = {each.ninth:.4f}"]
        if each.rank is not None:
            lines.append(f"rank = {each.rank:.4f}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def fit_in_turn(rows: Sequence[Measurement], predictor: Predictor) -> tuple[dict[str, float], Errors]:
    """The constants without the first third, and the error of each row by constants that were not fitted to it."""
    by_third: list[dict[str, float]] = []
    errors: dict[int, tuple[float, float]] = {}
    for third in range(3):
        print(f"third {third} held out", file=sys.stderr)
        by_third.append(fit([each for each in rows if each.third != third], predictor))
        held_out = [each for each in rows if each.third == third]
        errors.update(errors_of(held_out, predictor, Constants(by_third[-1], (), "")))
    return by_third[0], errors


def main() -> None:
    path = Path(sys.argv[1])
    rows, left = read_measurements(path)
    predictor = Predictor(rows)
    held_out = [each for each in rows if each.is_held_out]
    others = [each for each in rows if not each.is_held_out]
    if "--fit" in sys.argv:
        target = Path(sys.argv[sys.argv.index("--fit") + 1])
        numbers, errors = fit_in_turn(rows, predictor)
        write(target, numbers, scores(rows, errors), len(others))
        given = parse_constants(target.read_text(encoding="utf-8"))
    else:
        given = constants()
    prior = Constants(PRIOR, (), "")
    show("Fitted to:", scores(others, errors_of(others, predictor, given)))
    title = f"Held out (the best published analytic model: {BEST_PUBLISHED:.0%}):"
    show(title, scores(held_out, errors_of(held_out, predictor, given)))
    show("Each third held out in turn:", given.scores)
    show("Held out, by the constants where the search begins:", scores(held_out, errors_of(held_out, predictor, prior)))
    show_worst(held_out, predictor, given)
    show_left_out(left)
    show_table(given)


if __name__ == "__main__":
    main()
