"""The power under load of the parts of Apple's chips, from the table of chips."""

from collections.abc import Sequence

from triune.core.units import Unit
from triune.hardware.chips import find_chip
from triune.hardware.energy.estimate import LoadPower
from triune.hardware.figures import Figure


def chip_powers(name: str) -> Sequence[LoadPower]:
    """The parts of a chip for which `chips.toml` has watts; empty for an unknown chip.

    The CPU and its matrix unit share one power rail, so they have the same watts.
    """
    chip = find_chip(name)
    if chip is None:
        return ()
    parts = (
        ("cpu", frozenset({Unit.CPU, Unit.AMX}), chip.cpu.watts),
        ("gpu", frozenset({Unit.GPU}), chip.gpu.watts),
        ("ane", frozenset({Unit.ANE}), chip.ane.watts),
    )
    return [
        LoadPower(part, units, figure.value, _source(figure)) for part, units, figure in parts if figure is not None
    ]


def _source(figure: Figure) -> str:
    return f"{figure.kind.value}, {figure.source}" + (f"; {figure.note}" if figure.note else "")
