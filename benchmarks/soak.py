"""Load from 1 to 256 connections: does memory grow, does anything fail, what is the tail?

Usage: soak.py [--minutes 10] [--model identity_fp32]
The number of connections steps through 1, 4, 16, 64, 256 every few seconds, and back, until the time is over.
"""

import argparse
import itertools
import tempfile
import time
from pathlib import Path

import numpy as np

import load
from servers import heading, triune
from triune.zoo.repository import build_repository

STEPS = (1, 4, 16, 64, 256, 64, 16, 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    print(heading("Soak"), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        build_repository(Path(folder), models=["identity_fp32"])
        small = load.encode("127.0.0.1", "identity_fp32", {"INPUT0": np.arange(16, dtype=np.float32)})
        with triune(Path(folder)) as server:
            begin = time.monotonic()
            after_first_minute = 0
            num_answers = 0
            latencies: dict[int, list[float]] = {step: [] for step in STEPS}
            for connections in itertools.cycle(STEPS):
                elapsed = time.monotonic() - begin
                if elapsed > options.minutes * 60:
                    break
                result = load.run(server.host, server.http_port, [small], connections, 5)
                if result.errors:
                    raise SystemExit(f"{len(result.errors)} errors at {connections} connections: {result.errors[0]}")
                num_answers += len(result.latencies)
                latencies[connections].append(result.percentile_ms(99))
                memory = server.memory_bytes()
                if elapsed > 60 and not after_first_minute:
                    after_first_minute = memory
                p50, p99 = (result.percentile_ms(each) for each in (50, 99))
                print(
                    f"{elapsed:5.0f} s  c={connections:<3} {result.rate:7.0f} inf/s  p50 {p50:6.2f} ms  "
                    f"p99 {p99:6.2f} ms  {memory / 2**20:6.1f} MiB",
                    flush=True,
                )
            growth = (server.memory_bytes() - after_first_minute) / 2**20
    print(f"{num_answers} answers, no errors; memory after the first minute grew by {growth:.1f} MiB")
    for step in sorted(set(STEPS)):
        print(f"p99 at {step} connections: {max(latencies[step]):.2f} ms (worst of {len(latencies[step])} steps)")


if __name__ == "__main__":
    main()
