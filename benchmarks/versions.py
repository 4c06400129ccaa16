"""What a request costs now and cost before: an identity of 16 floats, by two checkouts of Triune in turn.

Usage: versions.py --before DIR [--rounds 20] [--seconds 1] [--connections 1 8 32]
DIR is the root of another checkout, such as `git worktree add --detach DIR COMMIT` makes; it runs in this environment.

Each round starts both servers anew, since two processes of one checkout differ by a tenth, and loads one and then the
other, the order turned about every round.
Printed are medians over the rounds and the ratio now / before.
"""

import argparse
import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from load import encode, run
from servers import Running, heading, program_of, triune
from triune.zoo.repository import build_repository

MODEL = "identity_fp32"


@dataclass(frozen=True)
class Round:
    """What one server did under one load: requests a second, latencies in us, CPU time in us a request."""

    rate: float
    p50_us: float
    p99_us: float
    cpu_us: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 32])
    options = parser.parse_args()
    print(heading("HTTP identity, now and before"), flush=True)
    here = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory() as folder:
        build_repository(Path(folder), models=[MODEL])
        checkouts = {"now": here, "before": options.before.resolve()}
        rounds: dict[int, dict[str, list[Round]]] = {}
        for index in range(options.rounds):
            with ExitStack() as servers:
                running = {
                    name: servers.enter_context(
                        triune(Path(folder), label=name, port=19000 + 10 * number, program=program_of(root))
                    )
                    for number, (name, root) in enumerate(checkouts.items())
                }
                for connections in options.connections:
                    for name in sorted(running, reverse=index % 2 == 1):
                        found = measure(running[name], connections, options.seconds)
                        rounds.setdefault(connections, {}).setdefault(name, []).append(found)
        for connections, found_by_name in rounds.items():
            report(connections, found_by_name)


def measure(server: Running, connections: int, seconds: float) -> Round:
    request = encode(server.host, MODEL, {"INPUT0": np.zeros(16, np.float32)})
    before = server.cpu_seconds()
    result = run(server.host, server.http_port, [request], connections, seconds)
    cpu = server.cpu_seconds() - before
    if result.errors:
        raise SystemExit(f"{server.label}: {result.errors[0]}")
    return Round(
        result.rate, result.percentile_ms(50) * 1e3, result.percentile_ms(99) * 1e3, cpu / len(result.latencies) * 1e6
    )


def report(connections: int, rounds: dict[str, list[Round]]) -> None:
    medians = {
        name: Round(*(statistics.median(getattr(each, field) for each in all_) for field in Round.__annotations__))
        for name, all_ in rounds.items()
    }
    for name, each in medians.items():
        print(
            f"c={connections:<3} {name:8} {each.rate:7.0f} inf/s  p50 {each.p50_us:6.0f} us  p99 {each.p99_us:6.0f} us"
            f"  server CPU {each.cpu_us:6.1f} us/inf"
        )
    now, before = medians["now"], medians["before"]
    ratios = (f"{getattr(now, field) / getattr(before, field):.3f}" for field in Round.__annotations__)
    print("c={:<3} ratio    rate {}  p50 {}  p99 {}  CPU {}".format(connections, *ratios), flush=True)


if __name__ == "__main__":
    main()
