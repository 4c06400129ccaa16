"""`triune units`: this machine's compute units."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from triune.api.units import units as find_units
from triune.cli.output import escaped, print_json
from triune.cli.power import print_power
from triune.core.clock import MonotonicClock
from triune.core.units import Presence
from triune.hardware.caches import Cache
from triune.hardware.cpu import CoreLevel, read_cpu
from triune.hardware.energy.detect import this_machines_meter
from triune.hardware.facts import Support, UnitFacts, units_json
from triune.hardware.figures import Figure

_COLOURS: Final = {Presence.PRESENT: "green", Presence.EMULATED: "yellow", Presence.ABSENT: "dim"}
_MEMORY_UNITS: Final = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_SUPPORT: Final = {
    Support.COMPUTES: "{}",
    Support.CONVERTED: "{} computed in another precision",
    Support.WEIGHTS: "{} for weights alone",
    Support.NO: "no {}",
}
_WORDS: Final = {
    "memory_gb_per_s": "bandwidth",
    "memory_gb_per_s_here": "bandwidth here",
    "gb_per_s": "reads",
    "tops": "rated",
    "compute_capability": "capability",
}
_WIDTH: Final = 16


def units(
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure rates and bandwidth here, and keep them. Takes a minute.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, as docs/units.md describes it.")] = False,
) -> None:
    """List the compute units: what each is and can do, its figures with their sources, and why one is absent."""
    if measure:
        # Import this only for --measure: the import takes longer than the whole command without that option.
        from triune.api.measuring import measure_units

        found = measure_units()
    else:
        found = find_units()
    if as_json:
        print_json(units_json(found))
        return
    console = Console()
    print_units(found, console)
    with closing(this_machines_meter(found, read_cpu().name, MonotonicClock())) as meter:
        print_power(meter, console)


def print_units(units: Sequence[UnitFacts], console: Console) -> None:
    """Print a block for each unit, and the sources of all figures with their numbers at the end."""
    sources: dict[str, int] = {}
    for facts in units:
        console.print(_table(facts, sources), highlight=False)
        console.print()
    for source, number in sources.items():
        console.print(f"[{number}] {source}", style="dim", markup=False, highlight=False)


def _table(facts: UnitFacts, sources: dict[str, int]) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=_WIDTH, overflow="fold")
    table.add_column(overflow="fold")
    presence = f"[{_COLOURS[facts.presence]}]{facts.presence.value}[/]"
    what = facts.description or facts.reason
    table.add_row(f"[bold]{facts.unit.value}[/]", f"{presence}: {escaped(what)}")
    for name, text in _lines(facts, sources):
        table.add_row(f"  {name}", escaped(text))
    return table


def _lines(facts: UnitFacts, sources: dict[str, int]) -> Iterator[tuple[str, str]]:
    if facts.cores:
        yield "cores", ", ".join(_cores(each) for each in facts.cores)
    if facts.caches:
        yield "caches", ", ".join(_cache(each) for each in facts.caches)
    if facts.memory_bytes:
        yield "memory", f"{_size(facts.memory_bytes)}{', shared with the CPU' if facts.is_memory_shared else ''}"
    if facts.precisions:
        by_support = {each: [name for name, its in facts.precisions.items() if its is each] for each in Support}
        yield (
            "precisions",
            "; ".join(_SUPPORT[each].format(", ".join(names)) for each, names in by_support.items() if names),
        )
    for name, text in facts.features.items():
        yield _words(name), text
    for name, figure in facts.figures.items():
        yield _words(name), _figure(figure, sources)
    if facts.runtimes:
        yield "runtimes", ", ".join(f"{each.title} {each.version}".strip() for each in facts.runtimes)
    for reason, names in _by_reason(facts.unavailable).items():
        yield "unknown", f"{', '.join(map(_words, names))}: {reason}"


def _cores(level: CoreLevel) -> str:
    if level.name.startswith("level "):
        return f"{level.num_cores} cores of {level.name}"
    return f"{level.num_cores} {level.name.lower()}{'' if level.name.endswith('s') else ' cores'}"


def _cache(cache: Cache) -> str:
    kind = "" if cache.kind == "unified" else f" {cache.kind}"
    return f"L{cache.level}{kind} {_size(cache.size_bytes)}"


def _by_reason(unavailable: Mapping[str, str]) -> Mapping[str, Sequence[str]]:
    return {why: [name for name, each in unavailable.items() if each == why] for why in unavailable.values()}


def _words(name: str) -> str:
    """A figure's name as words: "matmul_fp32_tflops" gives "matmul fp32". The unit (TFLOPS) is left out, since it is
    printed after the value.
    """
    if name in _WORDS:
        return _WORDS[name]
    for ending in ("_tflops", "_tops", "_gb_per_s", "_ms", "_mb"):
        name = name.replace(ending, "")
    return name.replace("_", " ")


def _figure(figure: Figure, sources: dict[str, int]) -> str:
    """A figure as text such as "18.6 TFLOPS fp16, measured [3]", with the range of reported values and the note."""
    number = sources.setdefault(figure.source, len(sources) + 1)
    low, high = figure.low, figure.high
    spread = f" ({low or figure.value:g} to {high or figure.value:g} reported)" if low or high else ""
    what = " ".join(part for part in (f"{figure.value:g}", figure.unit, figure.basis) if part)
    return f"{what}, {figure.kind.value} [{number}]{spread}{f'; {figure.note}' if figure.note else ''}"


def _size(num_bytes: int) -> str:
    for size, unit in _MEMORY_UNITS:
        if num_bytes >= size:
            return f"{num_bytes / size:.4g} {unit}"
    return f"{num_bytes} B"
