"""Published figures of Apple's chips, read from `chips.toml`.

Each figure has a source, and the kind of the source. A figure that nobody published is None, never a guess.
`docs/chips.md` says how to add a chip.
"""

import dataclasses
import functools
import importlib.resources
import itertools
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

from triune.core.errors import InvalidArgumentError, NotFoundError
from triune.hardware.chip import CHOICES, UNIT, Chip, ChipAne, ChipCpu, ChipGpu, ChipMemory
from triune.hardware.figures import Fact, Figure, FigureKind

_SECTIONS: Final = {"cpu": ChipCpu, "gpu": ChipGpu, "ane": ChipAne, "memory": ChipMemory}


def chip(name: str) -> Chip:
    """Return the chip with this name. "M2 Pro", "m2-pro" and "Apple M2 Pro" are the same chip.

    Raises:
        NotFoundError: the table has no such chip; the message lists the known chips.
    """
    found = find_chip(name)
    if found is None:
        known = ", ".join(each.name for each in chips())
        raise NotFoundError(f"chip '{name}' is not in the table of chips; it has {known}")
    return found


def find_chip(name: str) -> Chip | None:
    """Return the chip with this name. None if the table lacks it, for example because the machine is newer than the
    table.
    """
    return next((each for each in chips() if _key(each.name) == _key(name)), None)


@functools.cache
def chips() -> tuple[Chip, ...]:
    """All chips of the table, in its order."""
    file = importlib.resources.files("triune.hardware") / "chips.toml"
    return parse_chips(file.read_text(encoding="utf-8"))


def _key(name: str) -> str:
    words = re.sub(r"[-_ ]+", " ", name).strip().lower()
    return words.removeprefix("apple ")


def parse_chips(text: str, file: str = "chips.toml") -> tuple[Chip, ...]:
    """Read a table of chips.

    Args:
        text: TOML in the form that `docs/chips.md` describes.
        file: the name of the file, for messages.

    Raises:
        InvalidArgumentError: a field is wrong or unknown; the message names the chip, the field and the line.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgumentError(f"{file}: {error}") from error
    return _Reader(text, file, content).chips()


class _Reader:
    """Reads the table of chips, with the line numbers of its fields for errors."""

    def __init__(self, text: str, file: str, content: Mapping[str, Any]) -> None:
        self._lines = dict(_lines(text))
        self._file = file
        self._content = content
        self._sources: dict[str, str] = {}

    def chips(self) -> tuple[Chip, ...]:
        for key, text in self._table(self._content.get("sources", {}), "sources", "").items():
            self._sources[key] = self._text(text, "sources", key, "")
        names = [name for name in self._content if name != "sources"]
        found = [self._chip(name, self._table(self._content[name], name, "")) for name in names]
        for one, other in itertools.combinations(found, 2):
            if _key(one.name) == _key(other.name):
                raise self._error(other.name, "", f"it is the same chip as '{one.name}', which is in the table already")
        return tuple(found)

    def _chip(self, name: str, table: Mapping[str, Any]) -> Chip:
        sections: dict[str, Any] = {}
        for section, kind in _SECTIONS.items():
            values = self._table(table.get(section, {}), name, section)
            fields = {each.name: each for each in dataclasses.fields(kind)}
            read = dict[str, Figure | Fact]()
            for key, value in values.items():
                path = f"{section}.{key}"
                if key not in fields:
                    raise self._error(name, path, f"there is no such field; {section} has {', '.join(fields)}")
                read[key] = self._value(name, path, value, fields[key].metadata)
            sections[section] = kind(**cast("Any", read))
        if unknown := [key for key in table if key not in _SECTIONS]:
            raise self._error(name, unknown[0], f"there is no such section; a chip has {', '.join(_SECTIONS)}")
        generation = name.split()[0] if name.split() else ""
        if not re.fullmatch(r"[AM]\d+", generation):
            raise self._error(name, "", "a chip's name begins with A or M and a number, as in 'M2 Pro'")
        return Chip(name, generation, **sections)

    def _value(self, name: str, path: str, value: object, metadata: Mapping[str, Any]) -> Figure | Fact:
        table = dict(self._table(value, name, path))
        kind = self._kind(name, path, table.pop("kind", None))
        source = self._text(table.pop("source", None), name, path, "source")
        if source not in self._sources:
            raise self._error(name, path, f"source '{source}' is not in [sources]")
        note = self._text(table.pop("note", ""), name, path, "note")
        if CHOICES in metadata:
            word = self._text(table.pop("value", None), name, path, "value")
            self._require_empty(name, path, table)
            if word not in metadata[CHOICES]:
                raise self._error(name, path, f"value '{word}' is none of {', '.join(metadata[CHOICES])}")
            return Fact(word, kind, self._sources[source], note)
        number = self._number(table.pop("value", None), name, path, "value")
        smaller = self._numbers(table.pop("smaller", []), name, path)
        low, high = (self._number(table.pop(key), name, path, key) if key in table else None for key in ("low", "high"))
        basis = self._text(table.pop("basis", ""), name, path, "basis")
        self._require_empty(name, path, table)
        if basis not in ("", *_BASES):
            raise self._error(name, path, f"basis '{basis}' is none of {', '.join(_BASES)}")
        if list(smaller) != sorted({*smaller}) or (smaller and smaller[-1] >= number):
            raise self._error(name, path, f"'smaller' must ascend, below the value {number:g}")
        if not (low is None or low <= number) or not (high is None or high >= number):
            raise self._error(name, path, f"the value {number:g} is not between 'low' and 'high'")
        return Figure(number, metadata[UNIT], kind, self._sources[source], basis, smaller, low, high, note)

    def _kind(self, name: str, path: str, value: object) -> FigureKind:
        kinds = [each.value for each in FigureKind]
        if value not in kinds:
            raise self._error(name, path, f"kind {value!r} is none of {', '.join(kinds)}")
        return FigureKind(value)

    def _numbers(self, value: object, name: str, path: str) -> tuple[float, ...]:
        if not isinstance(value, list):
            raise self._error(name, path, f"'smaller' must be a list of numbers, not {value!r}")
        return tuple(self._number(each, name, path, "smaller") for each in cast("Sequence[object]", value))

    def _number(self, value: object, name: str, path: str, key: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise self._error(name, path, f"'{key}' must be a number above 0, not {value!r}")
        return value

    def _text(self, value: object, name: str, path: str, key: str) -> str:
        if not isinstance(value, str) or (not value and key == "source"):
            raise self._error(name, path, f"'{key or path}' must be a text, not {value!r}")
        return value

    def _table(self, value: object, name: str, path: str) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise self._error(name, path, f"it must be a table, not {value!r}")
        return cast("Mapping[str, Any]", value)

    def _require_empty(self, name: str, path: str, table: Mapping[str, object]) -> None:
        if table:
            raise self._error(name, path, f"'{next(iter(table))}' is unknown there")

    def _error(self, name: str, path: str, problem: str) -> InvalidArgumentError:
        keys = (name, *path.split(".")) if path else (name,)
        lines = [self._lines[keys[:size]] for size in range(len(keys), 0, -1) if keys[:size] in self._lines]
        line = f", line {lines[0]}" if lines else ""
        what = f"[{name}]" if name == "sources" else f"chip '{name}'"
        return InvalidArgumentError(f"{self._file}{line}: {what}{f', field {path}' if path else ''}: {problem}")


_BASES: Final = ("fp32", "fp16", "bf16", "int8")


def _lines(text: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """Find the line numbers of tables, and of keys at the beginning of a line, since tomllib does not report them."""
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.split("\n"), start=1):
        if header := re.match(r"\s*\[([^\[\]]+)\]", line):
            table = tuple(_keys(header[1]))
            for size in range(1, len(table) + 1):
                yield table[:size], number
        elif key := re.match(r"\s*([\w\-\".' ]+?)\s*=", line):
            yield (*table, *_keys(key[1])), number


def _keys(text: str) -> Iterator[str]:
    for quoted, single, bare in re.findall(r"\"([^\"]*)\"|'([^']*)'|([\w\-]+)", text):
        yield quoted or single or bare
