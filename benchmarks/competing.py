"""Models that compete for the cores: what each gets done, alone and together, with this checkout and another in turn.

Usage: competing.py [--before DIR] [--rounds 3] [--seconds 10] [--scenes units models short]
DIR is the root of another checkout, which runs in this environment.

- units: MiniLM on `cpu`, on `amx`, and on both, at 16 connections: at first, when both units and what they do together
  are being measured, and after 20 s. A second unit should cost nothing then.
- models: MiniLM, EfficientNet and completions of SmolLM2 at once. The sum of each rate by the rate alone is how much
  more gets done together than by one at a time.
- short: single texts to MiniLM beside batches of 32 images to EfficientNet, and beside the same batches in one queue:
  EfficientNet's own single images, first come first served or with a latency objective of 60 or 30 ms. On `amx`, and
  on both.

Printed are medians over the rounds.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvloop

from bare import inputs_of
from load import Result, encode, load
from servers import Running, heading, program_of, triune
from triune.core.units import Unit
from triune.zoo.repository import build_repository

_LEARNING_SECONDS = 20.0
_SETS_OF_UNITS: Sequence[Sequence[Unit]] = ([Unit.CPU], [Unit.AMX], [Unit.CPU, Unit.AMX])
_NUM_WINDOWS = 8

Load = tuple[Sequence[bytes], int]
"""Requests, and the connections that send them."""


def completion(host: str, number: int) -> bytes:
    """A completion of 32 tokens."""
    body = json.dumps({"model": "smollm2", "prompt": f"{number} things that one", "max_tokens": 32, "temperature": 0})
    return (
        f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def measure(server: Running, loads: Mapping[str, Load], seconds: float) -> dict[str, Result]:
    """All loads at once."""

    async def together() -> list[Result]:
        return await asyncio.gather(
            *(load(server.host, server.http_port, requests, num, seconds) for requests, num in loads.values())
        )

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        results = runner.run(together())
    for name, result in zip(loads, results, strict=True):
        if result.errors:
            raise SystemExit(f"{server.label}: {name}: {result.errors[0]}")
    return dict(zip(loads, results, strict=True))


class Table:
    """Figures of several rounds, by name."""

    def __init__(self) -> None:
        self._figures: dict[str, list[float]] = {}

    def add(self, name: str, figure: float) -> None:
        self._figures.setdefault(name, []).append(figure)

    def show(self) -> None:
        for name, figures in self._figures.items():
            print(f"  {name:58} {statistics.median(figures):10.2f}   ({min(figures):.2f} to {max(figures):.2f})")


def by_units(server_of: Mapping[str, Path], options: argparse.Namespace) -> None:
    print("units: MiniLM's texts of 128 tokens a second, 16 connections")
    table = Table()
    for number in range(options.rounds):
        for label, root in _in_turn(server_of, number):
            with ExitStack() as servers:
                running = {
                    "+".join(unit.value for unit in units): servers.enter_context(_minilm(units, label, root, port))
                    for units, port in zip(_SETS_OF_UNITS, range(19000, 19100, 10), strict=False)
                }
                load = {
                    name: {
                        "minilm": ([encode(each.host, "minilm", inputs_of("minilm", 1), ["sentence_embedding"])], 16)
                    }
                    for name, each in running.items()
                }
                for name, server in running.items():
                    first = measure(server, load[name], options.seconds)["minilm"]
                    measure(server, load[name], max(0.1, _LEARNING_SECONDS - options.seconds))
                    table.add(f"{label}: {name}, at first", first.rate)
                # In short windows in turn: a virtual machine is twice as fast in some minutes as in others.
                for window in range(_NUM_WINDOWS):
                    rates = {
                        name: measure(running[name], load[name], options.seconds / 4)["minilm"].rate
                        for name in sorted(running, reverse=window % 2 == 1)
                    }
                    for name, rate in rates.items():
                        table.add(f"{label}: {name}", rate)
                    *alone, both = running
                    table.add(f"{label}: {both} / the best alone", rates[both] / max(rates[name] for name in alone))
    table.show()


@contextmanager
def _minilm(units: Sequence[Unit], label: str, root: Path, port: int) -> Iterator[Running]:
    with tempfile.TemporaryDirectory() as folder:
        build_repository(Path(folder), models=["minilm"], units=units)
        with triune(Path(folder), label=label, program=program_of(root), port=port) as server:
            yield server


def by_models(server_of: Mapping[str, Path], options: argparse.Namespace) -> None:
    print("models: rates alone and together")
    table = Table()
    for number in range(options.rounds):
        for label, root in _in_turn(server_of, number):
            with tempfile.TemporaryDirectory() as folder:
                build_repository(
                    Path(folder), models=["minilm", "efficientnet_lite0", "smollm2"], units=[Unit.CPU, Unit.AMX]
                )
                with triune(Path(folder), label=label, program=program_of(root)) as server:
                    loads: dict[str, Load] = {
                        "minilm": ([encode(server.host, "minilm", inputs_of("minilm", 1), ["sentence_embedding"])], 8),
                        "efficientnet_lite0": (
                            [encode(server.host, "efficientnet_lite0", inputs_of("efficientnet_lite0", 1))],
                            8,
                        ),
                        "smollm2": ([completion(server.host, each) for each in range(50)], 4),
                    }
                    alone = {
                        name: measure(server, {name: each}, options.seconds / 2)[name].rate
                        for name, each in loads.items()
                    }
                    measure(server, loads, options.seconds)  # how many at once is measured meanwhile
                    found = measure(server, loads, options.seconds)
                    for name, result in found.items():
                        table.add(f"{label}: {name} alone, a second", alone[name])
                        table.add(f"{label}: {name} together, a second", result.rate)
                        table.add(f"{label}: {name} together, p99 ms", result.percentile_ms(99))
                    table.add(f"{label}: together / alone, sum", sum(found[n].rate / alone[n] for n in loads))
    table.show()


def by_length(server_of: Mapping[str, Path], options: argparse.Namespace) -> None:
    print("short: single requests beside batches of 32 images")
    table = Table()
    for number in range(options.rounds):
        for label, root in _in_turn(server_of, number):
            for units in ([Unit.AMX], [Unit.CPU, Unit.AMX]):
                with tempfile.TemporaryDirectory() as folder:
                    build_repository(Path(folder), models=["minilm", "efficientnet_lite0"], units=units)
                    for name, model, output, objective_ms in _SHORT:
                        _allow(Path(folder) / "efficientnet_lite0" / "config.pbtxt", objective_ms)
                        with triune(Path(folder), label=label, program=program_of(root)) as server:
                            short = [encode(server.host, model, inputs_of(model, 1), output)]
                            long = [encode(server.host, "efficientnet_lite0", inputs_of("efficientnet_lite0", 32))]
                            loads: dict[str, Load] = {"short": (short, 1), "long": (long, 4)}
                            measure(server, loads, options.seconds / 2)
                            found = measure(server, loads, options.seconds)
                        what = f"{label}, {'+'.join(unit.value for unit in units)}: {name}"
                        table.add(f"{what} short ones, p50 ms", found["short"].percentile_ms(50))
                        table.add(f"{what} short ones, p99 ms", found["short"].percentile_ms(99))
                        table.add(f"{what} long ones, a second", found["long"].rate)
    table.show()


_SHORT: Sequence[tuple[str, str, Sequence[str], int]] = (
    ("another model's", "minilm", ["sentence_embedding"], 0),
    ("the same model's", "efficientnet_lite0", (), 0),
    ("the same model's, objective 60 ms,", "efficientnet_lite0", (), 60),
    ("the same model's, objective 30 ms,", "efficientnet_lite0", (), 30),
)


def _allow(config: Path, objective_ms: int) -> None:
    """Give a model a latency objective; 0 leaves the config as it is."""
    if objective_ms:
        entry = f'parameters {{ key: "latency_objective_ms" value {{ string_value: "{objective_ms}" }} }}\n'
        config.write_text(config.read_text() + entry)


SCENES = {"units": by_units, "models": by_models, "short": by_length}


def _in_turn(server_of: Mapping[str, Path], number: int) -> list[tuple[str, Path]]:
    return sorted(server_of.items(), reverse=number % 2 == 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    options = parser.parse_args()
    print(heading("Models that compete for the cores"), flush=True)
    checkouts = {"now": Path(__file__).resolve().parents[1]}
    if options.before:
        checkouts["before"] = options.before.resolve()
    for scene in options.scenes:
        SCENES[scene](checkouts, options)


if __name__ == "__main__":
    main()
