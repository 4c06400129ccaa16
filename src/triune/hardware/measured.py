"""Stores figures that were measured on this machine in the cache folder, by machine and runtime versions."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from triune.core.files import read_file, replace_file
from triune.core.units import Unit
from triune.hardware.facts import RuntimeVersion, UnitFacts, figure_json
from triune.hardware.figures import Figure, FigureKind

_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Measured:
    """The stored measurements of one machine.

    Attributes:
        figures: the figures by unit and name.
        reason: why the stored file cannot be read; "" if it can, or if there is none yet.
    """

    figures: Mapping[Unit, Mapping[str, Figure]] = field(default_factory=dict[Unit, Mapping[str, Figure]])
    reason: str = ""


def machine_key(units: Sequence[UnitFacts]) -> str:
    """A key for this machine and the versions of its runtimes. Figures that were measured with other versions have
    another key.
    """
    hardware = [
        [each.unit.value, each.name, [[kind.name, kind.num_cores] for kind in each.cores], each.memory_bytes]
        for each in units
    ]
    runtimes = [[each.unit.value, [_version(runtime) for runtime in each.runtimes]] for each in units]
    return hashlib.sha256(json.dumps([hardware, runtimes]).encode()).hexdigest()[:16]


def load_measured(folder: Path, key: str) -> Measured:
    """Read the figures that `save_measured` stored. If the file cannot be read, the result has no figures, and the
    reason.
    """
    path = folder / f"{key}.json"
    if not path.exists():
        return Measured()
    try:
        content = json.loads(read_file(path, _MOST_BYTES))
        return Measured({Unit(unit): _figures(figures) for unit, figures in content["units"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return Measured(reason=f"'{path}' is broken ({error})")


def save_measured(folder: Path, key: str, figures: Mapping[Unit, Mapping[str, Figure]]) -> Path:
    """Store figures, replacing older ones. Returns the path of the file.

    Raises:
        OSError: the folder cannot be written to.
    """
    units = {
        unit.value: {name: figure_json(figure) for name, figure in of_unit.items()} for unit, of_unit in figures.items()
    }
    path = folder / f"{key}.json"
    replace_file(path, json.dumps({"units": units}, indent=1))
    return path


def _version(runtime: RuntimeVersion) -> list[str]:
    return [runtime.name, runtime.version]


def _figures(value: object) -> Mapping[str, Figure]:
    if not isinstance(value, dict):
        raise TypeError(f"the figures of a unit are not an object but {value!r}")
    return {name: _figure(each) for name, each in cast("Mapping[str, Any]", value).items()}


def _figure(table: Mapping[str, Any]) -> Figure:
    number, unit, source = table["value"], table["unit"], table["source"]
    basis, note = table.get("basis", ""), table.get("note", "")
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < float("inf"):
        raise ValueError(f"a value is {number!r}, not a number above 0")
    if not all(isinstance(each, str) for each in (unit, source, basis, note)):
        raise TypeError("a unit, source, basis or note is not a text")
    return Figure(number, unit, FigureKind(table["kind"]), source, basis, note=note)
