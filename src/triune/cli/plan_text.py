"""Prints plans of models, and comparisons of plans, on the terminal."""

import math
from collections.abc import Sequence

from triune.cli.output import escaped, whole_table, wide_console
from triune.core.units import Unit
from triune.planning.constants import Score
from triune.planning.plan import Advice, Goal, Plan, Whole

COLOURS = {Unit.CPU: "white", Unit.AMX: "cyan", Unit.GPU: "magenta", Unit.ANE: "green"}
"""The colours of units, in the terminal."""

_MOST_ROWS = 40
_MOST_ADVICE = 5
_MOST_UNITS = 6


def print_plan(plan: Plan) -> None:
    """Print a plan on standard output. The figures are labelled as predicted, with the usual error of such
    predictions.
    """
    console = wide_console()

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    kind = "predicted" if any(each.measured for each in plan.wholes) else "predicted, not measured"
    say(f"[bold]{escaped(plan.title)}[/] on {plan.chip}, for {plan.goal.value}: {kind}")
    table = whole_table("", "unit", "operations", "ms", "joules", "why")
    for index, each in enumerate(plan.segments[:_MOST_ROWS]):
        first, last = each.ops[0], each.ops[-1]
        names = f"{len(each.ops)}: {first.op_type} {first.name}"
        names = names if len(each.ops) == 1 else f"{names} to {last.op_type} {last.name}"
        unit = f"[{COLOURS[each.unit]}]{each.unit.value}[/]"
        table.add_row(
            str(index + 1), unit, escaped(names), f"{each.ms:.3g}", _joules(each.joules, ""), escaped(each.why)
        )
    console.print(table)
    if len(plan.segments) > _MOST_ROWS:
        say(f"and {len(plan.segments) - _MOST_ROWS} segments more: --json and --html have them all")
    say(f"one call: {plan.ms:.3g} ms{_kind_of(plan)}")
    if math.isnan(plan.joules):
        say("          energy unavailable: the power of the units is not known")
    else:
        say(f"          {plan.joules:.2g} J{_kind_of_joules(plan)}")
    if plan.goal is Goal.THROUGHPUT:
        say(f"one call every {plan.period_ms:.3g} ms: {1e3 / plan.period_ms:.4g} a second (predicted)")
        apart = plan.apart_per_second
        better = "more than the pipeline" if apart > 1e3 / plan.period_ms else "less than the pipeline"
        say(f"whole calls side by side, one on each unit: {apart:.4g} a second (predicted): {better}")
    for whole in plan.wholes:
        if whole.ms is None or whole.joules is None:
            say(f"all on {whole.unit.value}: impossible, it refuses {whole.num_refused} operations")
        else:
            close = ", which the error does not tell from this plan" if plan.is_close(whole) else ""
            kind = "measured here" if whole.measured and whole.measured.joules else "predicted"
            is_known = not math.isnan(whole.joules)
            joules = f"{_joules(whole.joules, ' J')} ({kind})" if is_known else "energy unavailable"
            say(f"all on {whole.unit.value}: {whole.ms:.3g} ms ({_source_of(whole)}), {joules}{close}")
    if plan.core_ml is not None:
        core = plan.core_ml
        say(
            f"Core ML, asked for CPU and Neural Engine, would put {core.num_on_ane} of {len(plan.ops)} operations on "
            f"the Neural Engine; runs of operations on one unit: {core.num_segments} (predicted from its published "
            "estimates)"
        )
    for advice in plan.advice[:_MOST_ADVICE]:
        say(f"[yellow]faster[/] {escaped(text_of(advice))}")
    for note in plan.notes:
        say(f"[yellow]note[/] {escaped(note)}")


def print_comparison(plans: Sequence[Plan]) -> None:
    """Print plans of one model for several goals side by side, on standard output. The first is for latency."""
    console = wide_console()

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    first = plans[0]
    say(f"[bold]{escaped(first.title)}[/] on {first.chip}")
    table = whole_table("for", "segments on", "ms a call", "calls a second", "joules a call", "time")
    for plan in plans:
        units = ", ".join(f"[{COLOURS[each.unit]}]{each.unit.value}[/]" for each in plan.segments[:_MOST_UNITS])
        more = f" and {len(plan.segments) - _MOST_UNITS} more" if len(plan.segments) > _MOST_UNITS else ""
        rate, kind = f"{1e3 / plan.period_ms:.4g}", "measured here" if plan.measured else "predicted"
        table.add_row(plan.goal.value, units + more, f"{plan.ms:.3g}", rate, _joules(plan.joules, ""), kind)
    console.print(table)
    if predicted := [each for each in plans if not each.measured]:
        say(f"times:    {_kind_of(predicted[0]).strip(' ()')}")
    if not math.isnan(first.joules):
        say(f"energies: {_kind_of_joules(first).strip(' ()')}")
    for note in first.notes:
        say(f"[yellow]note[/] {escaped(note)}")


def _kind_of(plan: Plan) -> str:
    """The text that says whether the times of a plan are measured or predicted, and with what error."""
    whole = next((each for each in plan.wholes if plan.measured and each.measured is plan.measured), None)
    if whole is not None:
        return f" ({_source_of(whole)})"
    units = ", ".join(each.unit.value for each in plan.wholes if each.measured)
    if units:
        return f" (predicted, corrected by what was measured here of the whole model on {units})"
    return described(plan.latency_error)


def _kind_of_joules(plan: Plan) -> str:
    """The text that says whether the energies of a plan are measured or predicted, and with what error."""
    if plan.measured and plan.measured.joules:
        return " (measured here)"
    units = ", ".join(each.unit.value for each in plan.wholes if each.measured and each.measured.joules)
    if units:
        return f" (predicted, corrected by what was measured here of the whole model on {units})"
    return described(plan.joules_error)


def _source_of(whole: Whole) -> str:
    """The source of a whole model's time on a unit, as text: predicted or measured."""
    if whole.measured is None:
        return "predicted"
    calls = f"{whole.measured.num_calls:,} calls"
    return f"measured here: {whole.measured.source}, {calls}; the cost model alone predicts {whole.predicted_ms:.3g} ms"


def _joules(joules: float, unit: str) -> str:
    return "unavailable" if math.isnan(joules) else f"{joules:.2g}{unit}"


def described(error: Score | None) -> str:
    """The text that says that a time is predicted, and how far such predictions were from measurements (`error`)."""
    if error is None:
        return " (predicted; no measurement was held out to tell how well)"
    rows = f"{error.num_rows} measurements of {error.models} held out"
    return f" (predicted; of {rows}, half were within {error.median:.0%}, nine of ten within {error.ninth:.0%})"


def text_of(advice: Advice) -> str:
    """An advice as text, with the time that it saves."""
    saved = "" if advice.saves_ms is None else f" (saves {advice.saves_ms:.2g} ms, predicted)"
    return f"{advice.what}{saved}"
