"""Measure whether `triune.matmul` chooses the unit that is the fastest.

    python benchmarks/direct.py                        # fp32 (exact, and with bf16 allowed), bf16 and int8
    python benchmarks/direct.py --dtypes fp32 --most 4096

For each size from 16 to --most, each unit that computes in the precision multiplies two square matrices, and
`triune.matmul` does. They take turns, so that a disturbance meets all of them; the shortest time of each counts. The
last column is the time of the unit that was chosen, as a multiple of the shortest; the goal is 1.10. Sizes between
those that were measured when the machine was tuned are among them. Sizes whose matrices do not fit a quarter of the
memory, or that take longer than --seconds for one product, are left out. Also measured: one row times a matrix, and 16
matrices by 16.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from functools import partial

import ml_dtypes
import numpy as np

import triune
from triune.api.direct.crossovers import BATCHED, ROW, SQUARE, work_of
from triune.api.direct.products import here
from triune.core.datatypes import Array
from triune.hardware.memory import usable_memory

DTYPES = {"fp32": np.float32, "fp16": np.float16, "bf16": ml_dtypes.bfloat16, "int8": np.int8}
SIZES = (16, 24, 32, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
BATCH = 16
GOAL = 1.10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "fp32:bf16", "bf16", "int8"], help="dtype[:precision]")
    parser.add_argument("--most", type=int, default=8192, help="the largest size")
    parser.add_argument("--seconds", type=float, default=20.0, help="the longest product")
    parser.add_argument("--each", type=float, default=0.5, help="about how many seconds each unit takes for a size")
    arguments = parser.parse_args()
    direct = here()
    for each in direct._machine.units:
        print(f"{each.unit.value}: {each.presence.value} {each.description or each.reason}")
    print(f"load {os.getloadavg()[0]:.1f} on {direct._machine.num_cores} cores")
    misses = total = 0
    for text in arguments.dtypes:
        dtype, _, precision = text.partition(":")
        direct.best(dtype, precision or None)
        for shape, most in ((SQUARE, arguments.most), (ROW, min(arguments.most, 4096)), (BATCHED, 256)):
            sizes = [size for size in SIZES if size <= most]
            missed, num = measure(dtype, precision, shape, sizes, arguments.seconds, arguments.each)
            misses, total = misses + missed, total + num
    print(f"{total - misses} of {total} choices are within {GOAL:.2f} of the best unit")


def measure(dtype: str, precision: str, shape: str, sizes: Sequence[int], limit: float, each: float) -> tuple[int, int]:
    """Print a table. Returns how many choices miss the goal, and how many there are."""
    direct = here()
    names = direct.eligible(dtype, precision or None)
    print(f"\n{dtype}{f' in {precision} or better' if precision else ''}, {shape}: microseconds")
    print(f"{'size':>6} " + " ".join(f"{unit.value:>11}" for unit in names) + f" {'matmul':>11}  chosen")
    misses = num = 0
    slow = 0.0
    for size in sizes:
        if slow > limit or size * size * 16 > usable_memory().available // 4:
            break
        a, b = operands(dtype, shape, size)
        runs: list[Callable[[], Array]] = [partial(direct.unit(unit).matmul, a, b) for unit in names]
        runs.append(partial(triune.matmul, a, b, precision=precision or None))
        times = shortest(runs, each)
        choice = direct.best(dtype, precision or None)[shape](work_of(shape, size))
        ratio = times[names.index(choice)] / min(times[:-1])
        slow = max(times) * 4
        misses += ratio > GOAL
        num += 1
        cells = " ".join(f"{1e6 * time:11.1f}" for time in times)
        print(f"{size:>6} {cells}  {choice.value} {ratio:.2f}{'' if ratio <= GOAL else ' MISS'}", flush=True)
    return misses, num


def operands(dtype: str, shape: str, size: int) -> tuple[Array, Array]:
    """Random operands, whole numbers up to 127."""
    random = np.random.default_rng(0)
    batch = (BATCH,) if shape == BATCHED else ()
    rows = 1 if shape == ROW else size
    left, right = (random.integers(-127, 128, (*batch, n, size)).astype(DTYPES[dtype]) for n in (rows, size))
    return left, right


def shortest(runs: Sequence[Callable[[], Array]], seconds: float) -> list[float]:
    """The shortest time of each, in turns for about `seconds` each, at least thrice unless they take long."""
    found = [float("inf")] * len(runs)
    for run in runs:
        run()
    end = time.perf_counter() + seconds * len(runs)
    num = 0
    while num < 3 or time.perf_counter() < end:
        for at, run in enumerate(runs):
            start = time.perf_counter()
            run()
            found[at] = min(found[at], time.perf_counter() - start)
        num += 1
        if num and max(found) > 2:
            break
    return found


if __name__ == "__main__":
    main()
