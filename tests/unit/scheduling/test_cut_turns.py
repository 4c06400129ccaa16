"""Each segment of a model that is cut takes a turn on the hardware of its own unit."""

import asyncio
from collections.abc import Mapping, Sequence

import numpy as np

from support.hand import Doubler
from triune.arbiter.arbiter import Arbiter
from triune.arbiter.blocking import BlockingShare
from triune.config.policy import BatchingPolicy
from triune.core.clock import VirtualClock
from triune.core.datatypes import Array, DataType
from triune.core.requests import InferenceRequest
from triune.core.servable import Call
from triune.core.statistics import ModelStatistics
from triune.core.tensors import Signature, TensorSpec
from triune.core.units import Unit
from triune.scheduling.dispatcher import Dispatcher
from triune.scheduling.segments.executable import Segment, SegmentedExecutable
from triune.scheduling.segments.runner import SegmentsRunner
from triune.scheduling.worker import ThreadWorker

MS = 1_000_000


class Watched(Doubler):
    """Doubles one value into another in 20 ms, and notes which pools compute meanwhile."""

    def __init__(self, arbiter: Arbiter, clock: VirtualClock, unit: Unit, given: str, wanted: str) -> None:
        super().__init__(unit)
        self.signature = Signature(
            (TensorSpec(given, DataType.FP32, (-1, -1)),), (TensorSpec(wanted, DataType.FP32, (-1, -1)),)
        )
        self._arbiter, self._clock = arbiter, clock
        self.seen: list[Unit] = []

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        self.seen = [unit for unit, pool in self._arbiter.pools.items() if pool.running]
        self._clock.advance(20 * MS)
        (value,) = inputs.values()
        return dict.fromkeys(outputs, value * 2)


async def test_segments_take_turns_where_they_compute() -> None:
    clock = VirtualClock()
    arbiter = Arbiter(clock)
    first, second = Watched(arbiter, clock, Unit.CPU, "x", "a"), Watched(arbiter, clock, Unit.GPU, "a", "y")
    segments = [Segment(each, share=BlockingShare(arbiter, clock, "cut", each.unit)) for each in (first, second)]
    signature = Signature(first.signature.inputs, second.signature.outputs)
    executable = SegmentedExecutable(signature, segments, 0, is_shared=False, close=lambda: None)
    worker = ThreadWorker(SegmentsRunner(executable, clock), "cut")
    policy = BatchingPolicy(max_batch_size=8, is_dynamic=True)
    dispatcher = Dispatcher("cut", 1, policy, ["y"], [worker], ModelStatistics(), clock, arbiter=arbiter)
    x = np.ones((1, 1), np.float32)

    async def answer() -> float:
        response = await dispatcher.submit(Call(InferenceRequest("cut", {"x": x}), {"x": x}, 1))
        return float(response.outputs["y"][0, 0])

    assert await answer() == 4
    assert (first.seen, second.seen) == ([Unit.CPU], [Unit.GPU])

    # While another model has the turn of the second segment's hardware, the first computes, and the second waits.
    pool = arbiter.pools[Unit.GPU]
    other = arbiter.join("other", [Unit.GPU], lambda: None)[Unit.GPU]
    turn = other.start(Unit.GPU, 20 * MS)
    assert turn is not None
    second.seen = []
    task = asyncio.create_task(answer())
    async with asyncio.timeout(60):
        while not pool.waiting:
            await asyncio.sleep(0.001)
    assert second.seen == []
    other.end(turn, 20 * MS)
    assert await task == 4
    await dispatcher.close()
    for each in segments:
        assert each.share is not None
        each.share.close()
    other.close()
    assert not any(pool.shares or pool.running or pool.num_wanting for pool in arbiter.pools.values())
