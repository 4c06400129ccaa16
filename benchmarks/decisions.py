"""Measure what a decision of the scheduler costs: which unit runs a batch, of how many rows, and when.

    python benchmarks/decisions.py --models 100 --rounds 5

Dispatchers of --models models with four units each share one arbiter; each model always has requests waiting. Batches
compute nothing and take a time of the simulator's clock, so that all the processor's time is the scheduler's own. It is
compared with batches of as many requests of one model on one unit without an arbiter, where nothing is to decide: the
difference is what deciding costs. A batch takes several decisions: a waiting model is asked again at each arrival and
whenever a unit is free. In runs of their own, the time inside of one decision (`Choice.next`) is measured, and how
many there are. Printed are microseconds of the processor, the least of the rounds: what other programs compute at
the same time makes them longer, never shorter.
"""

import argparse
import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from triune.arbiter.arbiter import Arbiter
from triune.config.policy import BatchingPolicy
from triune.core.clock import VirtualClock
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.core.servable import Call
from triune.core.statistics import ModelStatistics
from triune.core.units import Unit
from triune.scheduling.batcher import FormedBatch
from triune.scheduling.choice import Choice
from triune.scheduling.dispatcher import Dispatcher
from triune.scheduling.lane import Lane
from triune.scheduling.queue import RequestQueue
from triune.simulation.chip import SimulatedChip
from triune.simulation.profile import BatchCost, Profile
from triune.simulation.virtual_loop import virtual_loop
from triune.simulation.worker import SimulatedBatch, SimulatedWorker

POLICY = BatchingPolicy(max_batch_size=8, is_dynamic=True)
SIZES = (1, 2, 4, 8)
ROW_MS = {Unit.CPU: 4.0, Unit.AMX: 2.0, Unit.GPU: 1.0, Unit.ANE: 1.5}
NUM_CLIENTS = 8
"""Requests that each model has under way: batches that run, and some requests that wait."""


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


@dataclass(frozen=True, eq=False)
class Scene:
    """What is run: models of which each is served on `units`, and has `num_clients` requests under way."""

    label: str
    num_models: int
    units: Sequence[Unit]
    has_arbiter: bool = True
    num_clients: int = NUM_CLIENTS


class Run:
    """Models that are asked again as soon as they have answered, until there were `num_batches`."""

    def __init__(self, scene: Scene, num_batches: int) -> None:
        self.scene = scene
        self.clock = VirtualClock()
        self.arbiter = Arbiter(self.clock) if scene.has_arbiter else None
        self.chip = Hardware(self.clock)
        self.num_left = num_batches
        self.num_requests = 0
        self.inputs = {"input": np.zeros((1, 16), np.float32)}

    async def run(self) -> None:
        self.done = asyncio.Event()
        models = [self.dispatcher(profile(f"m{index}", self.scene.units)) for index in range(self.scene.num_models)]
        for _ in range(self.scene.num_clients):
            for each in models:
                self.send(each)
        await self.done.wait()

    def dispatcher(self, each: Profile) -> Dispatcher:
        workers = [SimulatedWorker(each, unit, self.chip, self.clock, self.ran) for unit in self.scene.units]
        return Dispatcher(each.name, 1, POLICY, (), workers, ModelStatistics(), self.clock, arbiter=self.arbiter)

    def send(self, model: Dispatcher) -> None:
        def again(_: asyncio.Future[InferenceResponse]) -> None:
            if self.num_left > 0:
                self.send(model)

        call = Call(InferenceRequest("m", self.inputs), self.inputs, 1)
        model.submit(call).add_done_callback(again)

    def ran(self, batch: SimulatedBatch) -> None:
        self.num_requests += batch.num_rows
        self.num_left -= 1
        if self.num_left <= 0:
            self.done.set()


def measure(scene: Scene, num_batches: int) -> tuple[float, float]:
    """The microseconds of the processor that a batch takes, and the requests in one."""
    run = Run(scene, num_batches)
    with asyncio.Runner(loop_factory=lambda: virtual_loop(run.clock)) as runner:
        started = time.process_time()
        runner.run(run.run())
        return 1e6 * (time.process_time() - started) / num_batches, run.num_requests / num_batches


def decisions(scene: Scene, num_batches: int) -> tuple[float, float]:
    """The microseconds inside of one decision, without those of the timer, and the decisions that a batch takes."""
    spent_ns, num = 0, 0
    decide = Choice.next

    def timed(choice: Choice, queue: RequestQueue, now_ns: int) -> tuple[Lane, FormedBatch] | None:
        nonlocal spent_ns, num
        started_ns = time.thread_time_ns()
        found = decide(choice, queue, now_ns)
        spent_ns += time.thread_time_ns() - started_ns
        num += 1
        return found

    # The benchmark's own process; there is no seam for a timer in what decides.
    Choice.next = timed
    try:
        measure(scene, num_batches)
    finally:
        Choice.next = decide
    return (spent_ns / num - timer_ns()) / 1e3, num / num_batches


def timer_ns() -> int:
    """The time that passes between two readings of the thread's clock."""
    readings = [time.thread_time_ns() for _ in range(1000)]
    return min(later - sooner for sooner, later in pairwise(readings))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=5000)
    options = parser.parse_args()
    num_models, four = options.models, list(Unit)
    single, several = (
        Scene(f"nothing to decide, {clients} clients", 1, [Unit.GPU], False, clients) for clients in (1, 8)
    )
    scenes = [
        single,
        several,
        Scene("one model, four units", 1, four),
        Scene("one model, four units, 16 clients", 1, four, num_clients=16),
        Scene(f"{num_models} models, one unit each", num_models, [Unit.GPU]),
        Scene(f"{num_models} models, four units each", num_models, four),
    ]
    found = {scene: measure(scene, options.batches) for scene in scenes}
    within = {scene: decisions(scene, options.batches) for scene in scenes}
    for _ in range(options.rounds - 1):
        for scene in scenes:
            found[scene] = min(found[scene], measure(scene, options.batches))
            within[scene] = min(within[scene], decisions(scene, options.batches))
    (one_us, one), (several_us, some) = found[single], found[several]
    request_us = (several_us - one_us) / (some - one)
    print(
        f"{'us of the processor':34} {'a batch':>8} {'requests in it':>15} {'for deciding':>13} {'a decision':>11} "
        f"{'of a batch':>11}"
    )
    for scene, (each_us, num_requests) in found.items():
        deciding_us = each_us - (one_us + request_us * (num_requests - one))
        print(
            f"{scene.label:34} {each_us:8.1f} {num_requests:15.1f} {deciding_us:+13.1f} "
            f"{within[scene][0]:11.1f} {within[scene][1]:11.1f}"
        )


if __name__ == "__main__":
    main()
