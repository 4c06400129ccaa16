"""One server on several units: rates, latencies and joules on each unit alone, and on all of them at once.

Usage: every_unit.py --repository DIR [--units cpu amx gpu] [--models minilm efficientnet_lite0] [--rows 16]
                     [--connections 24] [--rounds 1] [--seconds 6] [--learn 6]

DIR holds the models as the zoo builds them; their placement is written anew into a copy. Each request holds --rows
rows, so that the units are what limits, not HTTP. Every server first gets the load for --learn seconds, in which it
measures its units. Printed: rows a second, p99 in ms, how the rows fell to the units, and the joules of a row on each
unit as /metrics tells them, with their kind: measured, estimated, or none where no meter is.
"""

import argparse
import http.client
import re
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bare import OUTPUTS, inputs_of
from load import Result, encode, run
from servers import Running, heading, triune
from triune.core.units import Unit
from triune.zoo.recipe import placement

_PLACEMENT = re.compile(r"^(instance_group|parameters \{ key: \"units\").*\n", re.MULTILINE)
_SAMPLE = re.compile(r"^(\w+)\{([^}]*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def place(source: Path, folder: Path, model: str, units: Sequence[Unit]) -> None:
    """Copy a model and place it on units."""
    shutil.copytree(source / model, folder / model)
    config = folder / model / "config.pbtxt"
    config.write_text(_PLACEMENT.sub("", config.read_text()) + placement(units))


def counted(server: Running, name: str, model: str) -> dict[tuple[str, str], float]:
    """A counter of a model by unit and kind."""
    connection = http.client.HTTPConnection(server.host, server.http_port + 2)
    connection.request("GET", "/metrics")
    found: dict[tuple[str, str], float] = {}
    for sample, labels, value in _SAMPLE.findall(connection.getresponse().read().decode()):
        named = dict(_LABEL.findall(labels))
        if sample.removesuffix("_total") == name and named.get("model") == model:
            key = named["unit"], named.get("kind", "")
            found[key] = found.get(key, 0.0) + float(value)
    return found


def measure(server: Running, model: str, options: argparse.Namespace) -> tuple[Result, dict[str, float], str]:
    """A load, the rows that each unit computed, and the joules of a row as text."""
    output = [OUTPUTS[model]]
    requests = [encode(server.host, model, inputs_of(model, options.rows, seed), output) for seed in range(4)]
    run(server.host, server.http_port, requests, options.connections, options.learn)
    names = "triune_unit_inference_count", "triune_energy_joules"
    before = {name: counted(server, name, model) for name in names}
    result = run(server.host, server.http_port, requests, options.connections, options.seconds)
    if result.errors:
        raise SystemExit(f"{model}: {result.errors[0]}")
    after = {name: counted(server, name, model) for name in names}
    grown = {name: {key: value - before[name].get(key, 0.0) for key, value in after[name].items()} for name in names}
    rows = {unit: value for (unit, _), value in grown["triune_unit_inference_count"].items()}
    joules = ", ".join(
        f"{unit} {value / rows[unit] * 1e3:.2f} mJ ({kind})"
        for (unit, kind), value in grown["triune_energy_joules"].items()
        if rows.get(unit)
    )
    return result, rows, joules or "no meter"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--units", nargs="+", type=Unit, default=[Unit.CPU, Unit.AMX, Unit.GPU])
    parser.add_argument("--models", nargs="+", default=["minilm", "efficientnet_lite0"], choices=OUTPUTS)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--connections", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--learn", type=float, default=6)
    options = parser.parse_args()
    print(heading("One server on several units"), flush=True)
    print(f"{options.connections} connections, {options.rows} rows a request")
    for model in options.models:
        rates: dict[str, list[float]] = {}
        for _ in range(options.rounds):
            for units in (*([unit] for unit in options.units), options.units):
                name = "+".join(unit.value for unit in units)
                with tempfile.TemporaryDirectory() as folder:
                    place(options.repository, Path(folder), model, units)
                    with triune(Path(folder)) as server:
                        result, rows, joules = measure(server, model, options)
                rate = result.rate * options.rows
                rates.setdefault(name, []).append(rate)
                shares = ", ".join(f"{unit} {each / sum(rows.values()):.0%}" for unit, each in rows.items())
                p99 = result.percentile_ms(99)
                print(f"{model:20}{name:14}{rate:10.0f} rows/s  p99 {p99:8.1f} ms  {shares};  {joules}", flush=True)
        medians = {name: statistics.median(each) for name, each in rates.items()}
        together = medians.pop("+".join(unit.value for unit in options.units))
        best = max(medians, key=lambda name: medians[name])
        print(f"{model}: all together {together / medians[best]:.2f} of the best alone, {best}", flush=True)


if __name__ == "__main__":
    main()
