"""Chooses the fastest unit for a product of two arrays, by times that were measured on this machine and stored."""

import bisect
import json
import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

from triune.core.files import read_file, replace_file
from triune.core.units import Unit

_log = logging.getLogger(__name__)

SQUARE: Final = "square"
"""The kind of products whose first operand has many rows."""

ROW: Final = "row"
"""The kind of products whose first operand has few rows: each number of the second operand is used few times."""

BATCHED: Final = "batched"
"""The kind of batched products: several matrices, each multiplied with another one."""

FEW_ROWS: Final = 8
"""Products with at most this many rows in the first operand count as `ROW`."""

BATCH: Final = 16
"""The number of matrices of measured `BATCHED` products."""

SIZES: Final[Mapping[str, Sequence[int]]] = {
    SQUARE: (16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048),
    ROW: (16, 64, 128, 256, 512, 1024, 2048, 4096),
    BATCHED: (16, 32, 64, 128, 256),
}
"""The measured sizes of each kind: a size is the number of rows and of columns of the second operand. Beyond the
largest size, times are assumed to grow by the same power of the work as between the two largest sizes.
"""

_FARTHEST: Final = 64
"""The best unit is predicted for products of up to this many times the work of the largest measured product."""

_MOST_BYTES: Final = 1 << 20

Times: TypeAlias = Mapping[str, Mapping[int, Mapping[Unit, float]]]
"""The seconds of one product, by kind (`SQUARE`, `ROW` or `BATCHED`), size and unit."""


def shape_of(rows: int, batch: int) -> str:
    """The kind of a product: BATCHED, ROW or SQUARE. `rows` is the number of rows of all first operands together,
    `batch` the number of second operands.
    """
    if batch > 1:
        return BATCHED
    return ROW if rows <= FEW_ROWS else SQUARE


def work_of(shape: str, size: int) -> int:
    """The number of multiplications in the measured product of a kind (`shape`) and a size."""
    rows = {SQUARE: size, ROW: 1, BATCHED: BATCH * size}[shape]
    return rows * size * size


@dataclass(frozen=True, slots=True)
class Choice:
    """The best unit by the number of multiplications.

    Attributes:
        limits: numbers of multiplications, ascending. `units[i]` is the best unit below `limits[i]`.
        units: the units, one more than the limits: the last is the best from the last limit on.
    """

    limits: tuple[float, ...]
    units: tuple[Unit, ...]

    def __call__(self, work: int) -> Unit:
        """The best unit for a product with `work` multiplications."""
        return self.units[bisect.bisect_right(self.limits, work)] if self.limits else self.units[0]


def choices(times: Times, units: Collection[Unit]) -> Mapping[str, Choice]:
    """The best unit for each kind of product.

    Between two measured sizes with different best units, each unit's time is interpolated as a power of the number of
    multiplications, and the limit is where the two times are equal.

    Args:
        times: the measured times.
        units: the units to choose from, at least one. Each has been measured.
    """
    return {shape: _choice(shape, by_size, units) for shape, by_size in times.items()}


def _choice(shape: str, by_size: Mapping[int, Mapping[Unit, float]], units: Collection[Unit]) -> Choice:
    limits: list[float] = []
    found: list[Unit] = []
    last_work, last = 0, dict[Unit, float]()
    beyond: tuple[float, Unit] | None = None
    for size in sorted(by_size):
        work = work_of(shape, size)
        seconds = {unit: by_size[size][unit] for unit in units}
        best = min(seconds, key=seconds.__getitem__)
        if found and found[-1] is not best:
            limits.append(_crossing(last_work, work, *((last[unit], seconds[unit]) for unit in (found[-1], best))))
        if not found or found[-1] is not best:
            found.append(best)
        beyond = _beyond((last_work, last), (work, seconds), best) if last else None
        last_work, last = work, seconds
    if beyond is not None:
        limits.append(beyond[0])
        found.append(beyond[1])
    return Choice(tuple(limits), tuple(found))


def _beyond(
    one: tuple[int, Mapping[Unit, float]], last: tuple[int, Mapping[Unit, float]], best: Unit
) -> tuple[float, Unit] | None:
    """The number of multiplications (work) from which another unit is predicted to be the best, and that unit; None if
    `best` stays the best up to `_FARTHEST` times the work of the largest measured product.

    Args:
        one: the work and the seconds of the second-largest product.
        last: the work and the seconds of the largest product. Beyond it, times are predicted to grow by the same power
            of the work as from `one` to `last`.
        best: the best unit for the largest product.
    """
    (low, before), (high, now) = one, last
    found: list[tuple[float, Unit]] = []
    for unit in now.keys() - {best}:
        gain = math.log(now[best] / before[best]) - math.log(now[unit] / before[unit])
        behind = math.log(now[unit] / now[best]) * math.log(high / low)
        if gain > 0 and behind <= gain * math.log(_FARTHEST):
            found.append((high * math.exp(behind / gain), unit))
    return min(found, key=lambda each: each[0], default=None)


def _crossing(low: int, high: int, one: tuple[float, float], other: tuple[float, float]) -> float:
    """The number of multiplications, between `low` and `high`, at which two units take equally long.

    `one` and `other` are the seconds of the two units, each at `low` and at `high`. `one` is faster at `low`.
    """
    at_low, at_high = math.log(other[0] / one[0]), math.log(one[1] / other[1])
    part = at_low / (at_low + at_high) if at_low + at_high > 0 else 0.5
    return math.exp(math.log(low) + part * (math.log(high) - math.log(low)))


def measured_units(times: Times) -> frozenset[Unit]:
    """The units that were measured at every size."""
    by_size = [by_unit.keys() for sizes in times.values() for by_unit in sizes.values()]
    return frozenset(unit for unit in Unit if by_size and all(unit in each for each in by_size))


def load_times(path: Path) -> dict[str, Times]:
    """Read the stored times, by dtype; empty if the file is missing or broken. A broken file is logged."""
    try:
        content = cast("dict[str, Any]", json.loads(read_file(path, _MOST_BYTES)))
        return {dtype: dict(_times(shapes)) for dtype, shapes in content.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        _log.warning("times of products in %s cannot be read, and are measured again: %s", path, error)
        return {}


def save_times(path: Path, times: Mapping[str, Times]) -> None:
    """Store times, replacing older ones. If the folder cannot be written to, a warning is logged."""
    content = {
        dtype: {
            shape: {f"{size}": {unit.value: each for unit, each in by_unit.items()} for size, by_unit in sizes.items()}
            for shape, sizes in shapes.items()
        }
        for dtype, shapes in times.items()
    }
    try:
        replace_file(path, json.dumps(content, indent=1))
    except OSError as error:
        _log.warning("cannot write to %s: %s; each program measures products again", path, error.strerror or error)


def _times(shapes: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[int, Mapping[Unit, float]]]]:
    if shapes.keys() != SIZES.keys():
        raise ValueError(f"its kinds of products are {', '.join(shapes)}, not {', '.join(SIZES)}")
    for shape, sizes in shapes.items():
        found = {int(size): {Unit(unit): float(each) for unit, each in by.items()} for size, by in sizes.items()}
        if any(not 0 < each < math.inf for by in found.values() for each in by.values()):
            raise ValueError("a time is not a number above 0")
        if tuple(found) != tuple(SIZES[shape]) or len({frozenset(by) for by in found.values()}) != 1:
            raise ValueError(f"sizes or units of '{shape}' are missing")
        yield shape, found
