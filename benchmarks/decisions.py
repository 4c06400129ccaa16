"""Measure what a decision of the scheduler costs: which unit runs a batch, of how many rows, and when.

    python benchmarks/decisions.py --models 100 --rounds 5

Dispatchers of --models models with four units each share one arbiter; each model always has requests waiting. Batches
compute nothing and take a time of the simulator's clock, so that all the real time is the scheduler's own. It is
compared with one model on one unit without an arbiter, where nothing is to decide: the difference is what deciding
costs. Printed are microseconds a batch, medians over the rounds.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

from triune.arbiter.arbiter import Arbiter
from triune.config.policy import BatchingPolicy
from triune.core.clock import VirtualClock
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.core.servable import Call
from triune.core.statistics import ModelStatistics
from triune.core.units import Unit
from triune.scheduling.dispatcher import Dispatcher
from triune.simulation.chip import SimulatedChip
from triune.simulation.profile import BatchCost, Profile
from triune.simulation.virtual_loop import virtual_loop
from triune.simulation.worker import SimulatedBatch, SimulatedWorker

POLICY = BatchingPolicy(max_batch_size=8, is_dynamic=True)
SIZES = (1, 2, 4, 8)
ROW_MS = {Unit.CPU: 4.0, Unit.AMX: 2.0, Unit.GPU: 1.0, Unit.ANE: 1.5}
NUM_CLIENTS = 8
"""Requests that each model has under way: one batch that runs, and some that wait."""


def profile(name: str, units: Sequence[Unit]) -> Profile:
    costs = {
        unit: [BatchCost(size, {unit: 1e6 * (0.5 + size * ROW_MS[unit])}, 0.0, 0.0) for size in SIZES] for unit in units
    }
    return Profile(name, POLICY, 16, "encoder", costs, {})


class Hardware(SimulatedChip):
    """Batches that do not slow each other down: the simulator's own work would be most of the time."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock, lambda unit: unit, dict.fromkeys(Unit, 1.0), None)
        self.clock = clock

    def begin(self, unit: Unit, cost: BatchCost, done: Callable[[float], None]) -> None:
        del unit
        self.clock.call_at(self.clock.now_ns() + int(cost.ns), lambda: done(0.0))


class Run:
    """Models that are asked again as soon as they have answered, until there were `num_batches`."""

    def __init__(self, num_models: int, units: Sequence[Unit], *, has_arbiter: bool, num_batches: int) -> None:
        self.clock = VirtualClock()
        self.arbiter = Arbiter(self.clock) if has_arbiter else None
        self.chip = Hardware(self.clock)
        self.units = units
        self.num_models = num_models
        self.num_left = num_batches
        self.inputs = {"input": np.zeros((1, 16), np.float32)}

    async def run(self) -> None:
        self.done = asyncio.Event()
        models = [self.dispatcher(profile(f"m{index}", self.units)) for index in range(self.num_models)]
        for _ in range(NUM_CLIENTS):
            for each in models:
                self.send(each)
        await self.done.wait()

    def dispatcher(self, each: Profile) -> Dispatcher:
        workers = [SimulatedWorker(each, unit, self.chip, self.clock, self.ran) for unit in self.units]
        return Dispatcher(each.name, 1, POLICY, (), workers, ModelStatistics(), self.clock, arbiter=self.arbiter)

    def send(self, model: Dispatcher) -> None:
        def again(_: asyncio.Future[InferenceResponse]) -> None:
            if self.num_left > 0:
                self.send(model)

        call = Call(InferenceRequest("m", self.inputs), self.inputs, 1)
        model.submit(call).add_done_callback(again)

    def ran(self, batch: SimulatedBatch) -> None:
        del batch
        self.num_left -= 1
        if self.num_left <= 0:
            self.done.set()


def microseconds(num_models: int, units: Sequence[Unit], *, has_arbiter: bool, num_batches: int) -> float:
    run = Run(num_models, units, has_arbiter=has_arbiter, num_batches=num_batches)
    with asyncio.Runner(loop_factory=lambda: virtual_loop(run.clock)) as runner:
        started = time.perf_counter()
        runner.run(run.run())
        return 1e6 * (time.perf_counter() - started) / num_batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=5000)
    options = parser.parse_args()
    found: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for label, num_models, units, has_arbiter in (
            ("one model, one unit, no arbiter", 1, [Unit.GPU], False),
            ("one model, four units", 1, list(Unit), True),
            (f"{options.models} models, one unit each", options.models, [Unit.GPU], True),
            (f"{options.models} models, four units each", options.models, list(Unit), True),
        ):
            each = microseconds(num_models, units, has_arbiter=has_arbiter, num_batches=options.batches)
            found.setdefault(label, []).append(each)
    base = statistics.median(found["one model, one unit, no arbiter"])
    for label, times in found.items():
        median = statistics.median(times)
        print(f"{label:38} {median:8.1f} us a batch, {median - base:+8.1f}  ({min(times):.1f} to {max(times):.1f})")


if __name__ == "__main__":
    main()
