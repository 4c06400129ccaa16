"""With a latency objective, requests of many rows are computed in parts, and others between them."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from support.hand import POISON, Doubler, HandWorker
from triune.config.policy import BatchingPolicy, QueueLimits
from triune.core.clock import VirtualClock
from triune.core.errors import InvalidArgumentError, UnavailableError
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.core.servable import Call, ComputeTime, Finisher
from triune.core.statistics import ModelStatistics
from triune.core.units import Unit
from triune.scheduling.dispatcher import Dispatcher

MS = 1_000_000
ROW_MS = 10


class Bench:
    """A model whose rows take 10 ms each, and whose requests should take 80 ms: 4 rows in a batch."""

    def __init__(
        self,
        *,
        num_units: int = 1,
        objective_ms: int = 80,
        run_limit_seconds: float = 1e9,
        row_ms: Sequence[int] = (ROW_MS, ROW_MS),
        **policy: object,
    ) -> None:
        self.row_ms = row_ms
        self.clock = VirtualClock()
        units = [Unit.CPU, Unit.GPU][:num_units]
        self.workers = [HandWorker(Doubler(unit), self.clock) for unit in units]
        self.statistics = ModelStatistics()
        self.dispatcher = Dispatcher(
            "m",
            1,
            BatchingPolicy(**{"max_batch_size": 64, "is_dynamic": True, **policy}),  # type: ignore[arg-type]
            ("y",),
            self.workers,
            self.statistics,
            self.clock,
            objective_ns=objective_ms * MS,
            run_limit_seconds=run_limit_seconds,
        )
        for _ in range(3 * num_units):
            self.send([0])
            self.finish()
        self.num_before = self.statistics.success.count

    def send(self, rows: Sequence[float], width: int = 1, **changes: object) -> asyncio.Future[InferenceResponse]:
        inputs = {"x": np.repeat(np.array(rows, np.float32)[:, np.newaxis], width, axis=1)}
        return self.dispatcher.submit(
            Call(InferenceRequest("m", inputs), inputs, len(rows), **changes)  # type: ignore[arg-type]
        )

    def finish(self) -> None:
        for worker, row_ms in zip(self.workers, self.row_ms, strict=False):
            if worker.current is not None:
                worker.finish(row_ms * len(worker.rows) * MS)

    async def finish_all(self) -> None:
        while self.statistics.num_pending and any(worker.current for worker in self.workers):
            self.finish()
            await asyncio.sleep(0)

    @property
    def running(self) -> list[list[float]]:
        return [worker.rows for worker in self.workers if worker.current is not None]


async def test_the_answer_is_that_of_the_whole_request() -> None:
    bench = Bench()
    time = ComputeTime()
    future = bench.send(range(1, 12), compute_time=time)
    batches = []
    while bench.running:
        batches += bench.running
        assert bench.statistics.num_pending == 1
        bench.finish()
    assert batches == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11]]
    np.testing.assert_array_equal((await future).outputs["y"][:, 0], 2 * np.arange(1, 12))
    assert bench.statistics.num_pending == 0
    assert bench.statistics.success.count == bench.num_before + 1
    assert bench.statistics.num_inferences == bench.num_before + 11
    assert time.infer_ns == bench.statistics.compute_infer.total_ns


async def test_a_small_request_waits_for_one_part_only() -> None:
    bench = Bench()
    large = [bench.send(range(10 * first, 10 * first + 10)) for first in (1, 2)]
    small = bench.send([7])
    assert bench.running == [[10, 11, 12, 13]]
    bench.finish()
    assert bench.running == [[7]]
    bench.finish()
    assert (await small).outputs["y"].tolist() == [[14]]
    order = []
    while bench.running:
        order.append(bench.running[0][0])
        bench.finish()
    assert order == [14, 20, 18, 24, 28], "the parts of large requests take turns"
    await bench.finish_all()
    for first, future in zip((1, 2), large, strict=True):
        assert (await future).outputs["y"][:, 0].tolist() == [2 * (10 * first + row) for row in range(10)]


async def test_small_requests_do_not_keep_a_large_one_waiting_for_ever() -> None:
    bench = Bench()
    large = bench.send(range(12))
    ran = []
    while not large.done():
        for _ in range(4):
            bench.send([99])
        ran += bench.running
        bench.finish()
    # Each part of 4 rows follows when 4 rows of others have overtaken it.
    assert [batch[0] for batch in ran if batch[0] != 99] == [0, 4, 8]
    assert sum(row == 99 for batch in ran for row in batch) <= 12
    await bench.finish_all()


async def test_the_parts_run_on_several_units_at_once() -> None:
    bench = Bench(num_units=2)
    future = bench.send(range(16))
    assert bench.running == [[0, 1, 2, 3], [4, 5, 6, 7]]
    await bench.finish_all()
    assert (await future).outputs["y"][:, 0].tolist() == [2 * row for row in range(16)]


async def test_a_slower_unit_gets_smaller_parts() -> None:
    bench = Bench(num_units=2, row_ms=(10, 40), max_batch_size=16)
    futures = [bench.send(range(20 * first, 20 * first + 16)) for first in range(30)]
    ran: list[list[int]] = [[], []]
    while bench.statistics.num_pending:
        for sizes, worker in zip(ran, bench.workers, strict=True):
            if worker.current is not None:
                sizes.append(len(worker.rows))
        bench.finish()
    assert max(ran[0]) == 4
    assert set(ran[1]) == {1}
    for first, future in enumerate(futures):
        assert (await future).outputs["y"][:, 0].tolist() == [2 * (20 * first + row) for row in range(16)]


async def test_an_error_of_one_part_is_the_request_s_and_counts_once() -> None:
    bench = Bench()
    future = bench.send([1, 2, 3, 4, 5, POISON, *range(7, 40)])
    other = bench.send([6])
    await bench.finish_all()
    with pytest.raises(InvalidArgumentError, match="poison"):
        await future
    assert (await other).outputs["y"].tolist() == [[12]]
    num_rows = sum(len(batch) for batch in bench.workers[0].executable.batches) - bench.num_before
    assert num_rows <= 1 + 3 * 4, "at most one part begins before the error is known"
    assert (bench.statistics.num_pending, bench.statistics.fail.count) == (0, 1)
    assert bench.statistics.success.count == bench.num_before + 1


async def test_a_request_that_its_client_leaves_ends_with_the_running_part() -> None:
    bench = Bench()
    future = bench.send(range(12))
    bench.finish()
    future.cancel()
    await asyncio.sleep(0)
    assert bench.statistics.num_pending == 1, "a part of it still runs"
    bench.finish()
    await asyncio.sleep(0)
    assert not bench.running
    assert (bench.statistics.num_pending, bench.statistics.fail.count, len(bench.dispatcher._queue)) == (0, 1, 0)
    await bench.dispatcher.drain()


async def test_a_part_that_exceeds_the_time_limit_ends_the_request() -> None:
    bench = Bench(run_limit_seconds=1)
    future = bench.send(range(12))
    bench.clock.advance(2_000 * MS)
    with pytest.raises(UnavailableError, match="did not answer within 1 s"):
        await future
    bench.finish()
    await asyncio.sleep(0)
    assert not bench.running
    assert (bench.statistics.num_pending, bench.statistics.fail.count) == (0, 1)


async def test_a_model_that_is_unloaded_finishes_what_has_begun() -> None:
    bench = Bench()
    begun, waiting = bench.send(range(12)), bench.send(range(12))
    bench.dispatcher.refuse()
    with pytest.raises(UnavailableError, match="unloaded"):
        await waiting
    await bench.finish_all()
    assert len((await begun).outputs["y"]) == 12
    assert bench.statistics.num_pending == 0
    await bench.dispatcher.close()


async def test_the_queue_s_limits_count_a_divided_request_once_and_hold_for_it() -> None:
    bench = Bench(queue_limits=QueueLimits(2, 60.0))
    first = bench.send([1])
    for _ in range(2):
        bench.send(range(12))
    with pytest.raises(UnavailableError, match="Exceeds maximum queue size"):
        bench.send(range(12))
    await bench.finish_all()
    assert first.done()
    assert bench.statistics.num_pending == 0


async def test_large_and_converted_answers_are_joined_in_threads() -> None:
    bench = Bench()

    def convert(response: InferenceResponse) -> InferenceResponse:
        return InferenceResponse("m", 1, {"y": -response.outputs["y"]}, "")

    future = bench.send(range(12), 4_000, finish=Finisher(convert, frozenset({"y"})))
    while not future.done():
        bench.finish()
        await asyncio.sleep(0.001)
    found = (await future).outputs["y"]
    np.testing.assert_array_equal(found, np.repeat(-2 * np.arange(12.0)[:, np.newaxis], 4_000, axis=1))
    assert bench.statistics.num_pending == 0


@pytest.mark.parametrize(
    "policy",
    [
        {"preserve_ordering": True},
        {"is_dynamic": False},
        {"ragged_inputs": frozenset({"x"})},
        {"objective_ms": 0},
    ],
)
async def test_requests_that_are_not_divided(policy: dict[str, object]) -> None:
    bench = Bench(**policy)  # type: ignore[arg-type]
    future = bench.send(range(12))
    assert bench.running == [[*range(12)]]
    await bench.finish_all()
    assert len((await future).outputs["y"]) == 12
