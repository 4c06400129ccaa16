"""Prints the result of a simulation on the terminal."""

from triune.cli.output import escaped, whole_table, wide_console
from triune.simulation.report import Served, Simulation


def print_simulation(simulation: Simulation) -> None:
    """Print a simulation on standard output. Its first line says that nothing was measured."""
    console = wide_console()

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    say(
        f"{simulation.num_requests} requests in {simulation.trace_seconds:.3g} s on {simulation.chip}: "
        "[bold]simulated, not measured[/]"
    )
    units = list(dict.fromkeys(unit for each in simulation.results for unit in each.utilisation))
    figures = ("rows/s", "p50 ms", "p99 ms", "refused", "joules", "of best")
    table = whole_table("scheduler", *figures, *(unit.value for unit in units))
    for each in simulation.results:
        use = [f"{each.utilisation.get(unit, 0.0):.0%}" for unit in units]
        total = each.total
        numbers = (total.rows_per_second, total.p50_ms, total.p99_ms, each.num_refused, total.joules)
        table.add_row(each.name, *map(_number, numbers), f"{each.of_optimum:.1%}", *use)
    console.print(table)
    own = simulation.results[0]
    say("by model and unit, as Triune schedules them (simulated):")
    parts = whole_table("model", "unit", "requests", "rows/s", "rows/batch", "p50 ms", "p99 ms", "queue ms", "joules")
    for each in own.parts:
        parts.add_row(escaped(each.model), each.unit.value if each.unit is not None else "", *_figures(each))
    console.print(parts)
    say(
        f"the best: no schedule computes more than {_number(simulation.capacity_rows)} rows a second of this mix, nor "
        f"answers what Triune answered within {own.least_seconds:.3g} s (Triune: {own.seconds:.3g} s), with "
        f"{_number(own.least_joules)} J and a p99 of {_number(own.least_p99_ms)} ms (bounds, each by itself, from the "
        "same predictions)"
    )
    for note in simulation.notes:
        say(f"[yellow]note[/] {escaped(note)}")


def _figures(part: Served) -> list[str]:
    found = (part.num_requests, part.rows_per_second, part.rows_per_batch, part.p50_ms, part.p99_ms, part.queue_ms)
    return [*map(_number, found), _number(part.joules)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
