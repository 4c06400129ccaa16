"""What `triune models --placement` prints: the requested, planned and observed units that a running server reports."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from triune.cli.output import escaped, whole_table
from triune.core.errors import InvalidArgumentError, UnavailableError
from triune.core.placement import Placement
from triune.frontends.kserve.placements import segment_json

_SECONDS = 30


def fetch_placements(url: str) -> Sequence[Mapping[str, Any]]:
    """Ask a server where its models compute.

    Args:
        url: the server's address, such as "localhost:8000" or "http://localhost:8000".

    Raises:
        InvalidArgumentError: the address is not an HTTP address, or the server answers with an HTTP error.
            UnavailableError: nothing answers, or the answer tells no placements: it is not from a server of Triune's.
    """
    base = (url if "://" in url else f"http://{url}").rstrip("/")
    if not base.startswith(("http://", "https://")):
        raise InvalidArgumentError(f"'{url}' is no address of a server; write one such as http://localhost:8000")
    try:
        with urllib.request.urlopen(f"{base}/v2/placement", timeout=_SECONDS) as answer:
            return json.load(answer)["placements"]
    except urllib.error.HTTPError as error:
        raise InvalidArgumentError(
            f"the server at {base} answers {error.code} to /v2/placement: {error.reason}"
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise UnavailableError(
            f"no server of Triune's tells its placements at {base}: {error}; start one with `triune serve`, or name "
            "another with --url"
        ) from error


def print_placements(placements: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print a table of all models, then the notes of each. Of a model that is not cut, the table has what each unit has
    computed since the load. A column in which nothing is known is left out.
    """
    observed = ("observed", "operations", "ms", "error", "since the load", "what the runtime reports")
    headers = ("model", "requested", "planned", *observed)
    rows: list[Sequence[str]] = []
    for each in placements:
        for number, segment in enumerate(each["segments"]):
            name = f"{each['name']} {each['version']}" if not number else ""
            row = (
                escaped(name),
                segment["requested"] or (escaped(each["requested"]) if not number else ""),
                _planned(segment),
                _observed(segment["observed"]),
                _operations(segment),
                _number(segment["observed"]["sample_ms"]),
                _number(segment["observed"]["error"]),
                "" if each["cut"] else _counted(segment["observed"]["unit"], each["units"]),
                escaped(segment["observed"]["report"]),
            )
            rows.append(row)
    shown = [column for column in range(len(headers)) if any(row[column] for row in rows)]
    table = whole_table(*(headers[column] for column in shown or range(len(headers))))
    for row in rows:
        table.add_row(*(row[column] for column in shown))
    console.print(table)
    for each in placements:
        notes = [*each["notes"], *(note for segment in each["segments"] for note in segment["notes"])]
        for note in dict.fromkeys(notes):
            console.print(f"{escaped(each['name'])}: {escaped(note)}", soft_wrap=True, highlight=False)


def placement_json(placement: Placement) -> dict[str, Any]:
    """The placement of a model that was loaded without a server, as JSON."""
    return {
        "requested": placement.requested,
        "cut": placement.is_cut,
        "segments": [segment_json(each, is_emulated=None) for each in placement.segments],
        "notes": list(placement.notes),
    }


def print_placement(placement: Placement, console: Console) -> None:
    """Print a line for each segment of a model that was loaded with a plan, and the notes."""
    for each in placement.segments:
        words = [each.runtime, each.precision, *([each.report] if each.report else [])]
        parts = "the whole" if each.num_ops is None else f"{each.num_ops} operations, {each.first} to {each.last}"
        time = "" if each.measured_ms is None else f", {each.measured_ms:.3g} ms"
        console.print(
            escaped(f"{each.unit.value} ({', '.join(words)}): {parts}{time}"), soft_wrap=True, highlight=False
        )
    for note in dict.fromkeys((*placement.notes, *(note for each in placement.segments for note in each.notes))):
        console.print(escaped(note), soft_wrap=True, highlight=False)


def _planned(segment: Mapping[str, Any]) -> str:
    if segment["planned"] is None:
        return ""
    predicted = segment["predicted_ms"]
    return segment["planned"] if predicted is None else f"{segment['planned']} ({predicted:.3g} ms predicted)"


def _observed(observed: Mapping[str, Any]) -> str:
    words = [word for word in (observed["runtime"], observed["precision"]) if word]
    emulated = ["emulated"] if observed["emulated"] else []
    return escaped(f"{observed['unit']} ({', '.join([*emulated, *words])})")


def _operations(segment: Mapping[str, Any]) -> str:
    if segment["operations"] is None:
        return "all"
    return escaped(f"{segment['operations']}: {segment['first']} to {segment['last']}")


def _counted(unit: str, units: Sequence[Mapping[str, Any]]) -> str:
    """The rows that a unit has computed, with the mean time and joules of a row."""
    found = next((each for each in units if each["unit"] == unit), None)
    if found is None or not found["rows"]:
        return "0 rows"
    rows = found["rows"]
    joules = sum(each.get("joules", 0.0) for each in found["energy"])
    energy = f", {joules / rows:.3g} J" if joules else ""
    return f"{rows:,} row{'s' if rows > 1 else ''}, each {found['busy_ms'] / rows:.3g} ms{energy}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
