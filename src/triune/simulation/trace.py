"""Traces, which record the arrival times of requests. `triune serve --record` writes them, and `triune simulate
--trace` reads them.

A trace is a file of JSON lines, one for each request, in the order of their arrival:
`{"at": 0.0125, "model": "minilm", "rows": 4, "unit": "gpu", "priority": 1}`. `at` is in seconds. `rows`, `unit` and
`priority` may be left out: a request then has 1 row, and names no unit and no priority. The contents of requests are
not recorded.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from triune.config.parse import without_duplicates
from triune.core.errors import InvalidArgumentError, NotFoundError
from triune.core.files import open_file
from triune.core.units import Unit

MOST_ARRIVALS: Final = 1_000_000
"""The most requests of a trace that is read or made."""

LONGEST_LINE_BYTES: Final = 4096
"""The longest line that is read; those that are written are shorter."""

_UNITS: Final = {unit.value: unit for unit in Unit}


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of a line: a number from `least` to `most`, or if `choices` is not None, one of these texts. Empty
    `choices` allow any text except the empty one.
    """

    expected: str
    choices: Collection[str] | None = None
    least: float = 0
    most: float = 2**31 - 1
    is_whole: bool = True

    def allows(self, value: object) -> bool:
        if self.choices is not None:
            return isinstance(value, str) and (value in self.choices or bool(value and not self.choices))
        kinds = int if self.is_whole else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool) and self.least <= value <= self.most


_FIELDS: Final[Mapping[str, _Field]] = {
    "at": _Field("a number of seconds from 0 to 10^8", most=1e8, is_whole=False),
    "model": _Field("the name of a model", choices=()),
    "rows": _Field("a whole number from 1 on", least=1),
    "unit": _Field(f"one of {', '.join(_UNITS)}", choices=_UNITS),
    "priority": _Field("a whole number from 0 on"),
}


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that arrives.

    Attributes:
        at_ns: the time, in nanoseconds since the trace began.
        model: the model's name.
        num_rows: the number of rows.
        unit: the unit that the request names; None leaves the choice to the scheduler.
        priority: the priority, of which 1 is the highest; 0 means the model's default.
    """

    at_ns: int
    model: str
    num_rows: int = 1
    unit: Unit | None = None
    priority: int = 0


def line_of(arrival: Arrival) -> str:
    """The line of a trace for a request, with its line break."""
    value: dict[str, object] = {"at": arrival.at_ns / 1e9, "model": arrival.model, "rows": arrival.num_rows}
    if arrival.unit is not None:
        value["unit"] = arrival.unit.value
    if arrival.priority:
        value["priority"] = arrival.priority
    return json.dumps(value) + "\n"


def read_trace(path: Path) -> list[Arrival]:
    """Read a trace.

    Raises:
        NotFoundError: there is no such file.
        InvalidArgumentError: the file cannot be read, has no requests or too many, or a line is wrong or out of order;
            the message has its number.
    """
    found: list[Arrival] = []
    try:
        for number, line in _lines(path):
            arrival = _arrival(f"trace {path}, line {number}", line)
            if found and arrival.at_ns < found[-1].at_ns:
                raise InvalidArgumentError(
                    f"trace {path}, line {number}: it arrives at {arrival.at_ns / 1e9:g} s, before the line above at "
                    f"{found[-1].at_ns / 1e9:g} s; sort the lines by 'at'"
                )
            found.append(arrival)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no trace {path}; `triune serve --record FILE` makes one") from error
    except OSError as error:
        raise InvalidArgumentError(f"trace {path} cannot be read: {error.strerror or error}") from error
    if not found:
        raise InvalidArgumentError(f"trace {path} is empty: it has no request to simulate")
    return found


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with open_file(path) as file:
        number = 0
        while line := file.readline(LONGEST_LINE_BYTES + 1):
            number += 1
            if len(line) > LONGEST_LINE_BYTES:
                raise InvalidArgumentError(
                    f"trace {path}, line {number}: it is longer than {LONGEST_LINE_BYTES} bytes; is it a trace?"
                )
            if number > MOST_ARRIVALS:
                raise InvalidArgumentError(f"trace {path} has more than {MOST_ARRIVALS:,} lines; cut it into several")
            yield number, line


def _arrival(where: str, line: bytes) -> Arrival:
    try:
        value: object = json.loads(line, object_pairs_hook=without_duplicates)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(
            f"{where}: it is no JSON ({error}); if the file was cut off there, remove the line"
        ) from None
    if not isinstance(value, dict):
        raise InvalidArgumentError(f"{where}: it is no JSON object; a line has {', '.join(_FIELDS)}")
    fields = cast("Mapping[str, object]", value)
    if unknown := next((key for key in fields if key not in _FIELDS), None):
        raise InvalidArgumentError(f"{where}: '{unknown}' is unknown; a line has {', '.join(_FIELDS)}")
    if lacking := next((key for key in ("at", "model") if key not in fields), None):
        raise InvalidArgumentError(f"{where}: '{lacking}' is missing")
    for key, each in fields.items():
        if not _FIELDS[key].allows(each):
            raise InvalidArgumentError(
                f"{where}: '{key}' is {json.dumps(each)[:80]}; it must be {_FIELDS[key].expected}"
            )
    read = cast("Mapping[str, Any]", fields)
    unit = _UNITS[read["unit"]] if "unit" in read else None
    return Arrival(round(read["at"] * 1e9), read["model"], read.get("rows", 1), unit, read.get("priority", 0))
