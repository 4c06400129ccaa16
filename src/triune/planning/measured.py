"""Stores measured times and joules of whole models on this machine on disk. Plans are corrected by them."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

from triune.core.errors import InvalidArgumentError
from triune.core.files import open_file, read_file, replace_file
from triune.core.oldest import forget_oldest
from triune.core.units import Unit

_MOST: Final = 1024
"""The number of models whose times are kept; the oldest are dropped first."""

_MOST_TIMES: Final = 256
"""The most times that are stored for a model; times of the newest shapes are kept."""

_MOST_BYTES: Final = 1 << 20

SERVED: Final = "triune serve"
"""The beginning of the source of times that a server measured, whatever its config is."""

MANY_CALLS: Final = 16
"""A server's time of fewer calls does not replace one of more."""


@dataclass(frozen=True, slots=True)
class MeasuredTime:
    """The measured time and energy of a call of a whole model on one unit of this machine.

    Attributes:
        unit: the unit.
        shapes: the shapes of its inputs, the rows of a batch included.
        ms: the usual time of a call: the mean of a tuning, the median of the newest calls to a server. If several
            configurations were tuned, it is the time of the fastest.
        num_calls: the number of calls that were measured.
        source: who measured it and when, such as "triune tune, 2026-12-01".
        joules: the mean energy of a call, by the meter of the unit; None if it was not measured.
    """

    unit: Unit
    shapes: Mapping[str, tuple[int, ...]]
    ms: float
    num_calls: int
    source: str = ""
    joules: float | None = None


def model_key(path: Path, machine: str) -> str:
    """The key of a model on this machine: a hash of its file, or of the files in its folder, and of `machine`.

    External weights of an ONNX model are not hashed, since times do not depend on their values.

    Args:
        path: the model.
        machine: the name of the machine with the versions of its runtimes (`hardware.measured.machine_key`).

    Raises:
        InvalidArgumentError: the model cannot be read.
    """
    digests: list[str] = []
    try:
        files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
        for each in files:
            with open_file(each) as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise InvalidArgumentError(f"'{path}' cannot be read: {error.strerror or error}") from error
    return key_of(digests, machine)


def key_of(digests: Iterable[str], machine: str) -> str:
    """The `model_key` of a model whose files have these SHA-256 digests (hexadecimal), in the order of their paths."""
    total = hashlib.sha256(machine.encode())
    for each in digests:
        total.update(bytes.fromhex(each))
    return total.hexdigest()


def load_times(folder: Path, key: str) -> tuple[Sequence[MeasuredTime], str]:
    """Load the stored times of a model.

    Args:
        folder: the folder where times are stored.
        key: the result of `model_key`.

    Returns:
        the times, and why a stored file cannot be read; "" if it can be read, or if there is none.
    """
    path = folder / f"{key}.json"
    try:
        return [_time(each) for each in json.loads(read_file(path, _MOST_BYTES))], ""
    except FileNotFoundError:
        return (), ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return (), f"times that were measured here cannot be read: '{path}' is broken ({error})"


def keep_times(folder: Path, key: str, times: Iterable[MeasuredTime]) -> None:
    """Store the times of a model. They replace older times of the same units and shapes. But those of a server do not
    replace a shorter time of a tuning, since the server's config may be a slower one, nor few calls many.

    Raises:
        OSError: the folder cannot be written to.
    """
    found = {_place(each): each for each in load_times(folder, key)[0]}
    for each in fastest(times):
        old = found.get(_place(each))
        if old is not None and _is_served(each):
            is_slower = old.ms < each.ms and not _is_served(old)
            if is_slower or each.num_calls < min(MANY_CALLS, old.num_calls):
                continue
        found.pop(_place(each), None)
        found[_place(each)] = each
    content = [
        {"unit": each.unit.value, "shapes": each.shapes, "ms": each.ms, "num_calls": each.num_calls}
        | {"source": each.source, "joules": each.joules}
        for each in list(found.values())[-_MOST_TIMES:]
    ]
    replace_file(folder / f"{key}.json", json.dumps(content))
    forget_oldest(folder, _MOST)


def fastest(times: Iterable[MeasuredTime]) -> list[MeasuredTime]:
    """The shortest time for each pair of a unit and shapes."""
    found: dict[object, MeasuredTime] = {}
    for each in times:
        kept = found.get(_place(each))
        if kept is None or each.ms < kept.ms:
            found[_place(each)] = each
    return list(found.values())


def of_shapes(
    times: Sequence[MeasuredTime], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[Mapping[Unit, MeasuredTime], str]:
    """Select the times of a model for the shapes of a plan.

    Returns:
        the times by unit, and a note for the user if there are only times of other shapes; "" otherwise.
    """
    found = {each.unit: each for each in times if each.shapes == shapes}
    if found or not times:
        return found, ""
    options = " ".join(f"--shape {name}={','.join(map(str, dims))}" for name, dims in times[-1].shapes.items())
    return {}, f"what was measured here is for other shapes, and corrects nothing; such as {options}"


def _place(time: MeasuredTime) -> object:
    return time.unit, tuple(sorted(time.shapes.items()))


def _is_served(time: MeasuredTime) -> bool:
    return time.source.startswith(SERVED)


def _time(content: Any) -> MeasuredTime:
    table = cast("dict[str, Any]", content)
    shapes = {str(name): tuple(int(dim) for dim in dims) for name, dims in table["shapes"].items()}
    ms, num_calls, source = table["ms"], table["num_calls"], table["source"]
    if not isinstance(ms, int | float) or not 0 < ms < float("inf"):
        raise ValueError(f"a time is {ms!r}, not a number of milliseconds above 0")
    joules = table.get("joules")
    if joules is not None and (not isinstance(joules, int | float) or not 0 < joules < float("inf")):
        raise ValueError(f"an energy is {joules!r}, not a number of joules above 0")
    if not isinstance(num_calls, int) or not isinstance(source, str):
        raise TypeError("a number of calls is no whole number, or a source no text")
    return MeasuredTime(Unit(table["unit"]), shapes, float(ms), num_calls, source, joules)


def dated(times: Iterable[MeasuredTime], source: str) -> list[MeasuredTime]:
    """Return copies of the times with `source` as their source."""
    return [replace(each, source=source) for each in times]
