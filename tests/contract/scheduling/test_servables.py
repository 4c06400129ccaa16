"""What every servable owes: each answer once, errors typed, cancelling, refusing, draining, closing."""

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from support.hand import POISON, Doubler
from support.steps import Shelf, fp32, graph, on_shelf, step, table_model
from support.table_servable import TableServable
from triune.config.policy import BatchingPolicy
from triune.core.clock import MonotonicClock
from triune.core.errors import InvalidArgumentError, TriuneError, UnavailableError
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.core.servable import Call, Finisher, Servable
from triune.core.statistics import ModelStatistics
from triune.scheduling.dispatcher import Dispatcher
from triune.scheduling.response_cache import CachedServable, ResponseCache
from triune.scheduling.runner import TensorRunner
from triune.scheduling.worker import InlineWorker, ThreadWorker


def double(call: Call) -> InferenceResponse:
    x = call.inputs["x"]
    if POISON in x:
        raise InvalidArgumentError("input 'x' holds poison")
    return InferenceResponse("doubler", 1, {"y": x * 2}, call.request.id)


def table() -> Servable:
    return TableServable(double)


def dispatcher(*, is_inline: bool) -> Servable:
    clock = MonotonicClock()
    worker = (
        InlineWorker(TensorRunner(Doubler())) if is_inline else ThreadWorker(TensorRunner(Doubler(), clock), "doubler")
    )
    policy = BatchingPolicy(max_batch_size=8, is_dynamic=True)
    return Dispatcher("doubler", 1, policy, ["y"], [worker], ModelStatistics(), clock)


def cached(inner: Servable, *, is_ordered: bool = False) -> Servable:
    return CachedServable(inner, ResponseCache(1 << 20), MonotonicClock(), is_ordered=is_ordered)


def ensemble(inner: Servable, *, max_under_way: int = 0) -> Servable:
    """A copy, then what `inner` answers."""
    copy = table_model("copy", fp32("x"), fp32("y"), lambda inputs: {"y": inputs["x"]})
    doubler = on_shelf("doubler", fp32("x"), fp32("y"), inner)
    steps = [step(0, "copy", {"x": "x"}, {"y": "copied"}), step(1, "doubler", {"x": "copied"}, {"y": "y"})]
    return graph(Shelf(copy, doubler), steps, fp32("x"), fp32("y"), name="doubler", max_under_way=max_under_way)


SERVABLES: dict[str, Callable[[], Servable]] = {
    "table": table,
    "dispatcher, inline": lambda: dispatcher(is_inline=True),
    "dispatcher, thread": lambda: dispatcher(is_inline=False),
    "cache around a table": lambda: cached(table()),
    "cache in order": lambda: cached(table(), is_ordered=True),
    "cache around a dispatcher": lambda: cached(dispatcher(is_inline=False)),
    "ensemble of tables": lambda: ensemble(table()),
    "ensemble of dispatchers": lambda: ensemble(dispatcher(is_inline=False)),
    "ensemble with an inline one": lambda: ensemble(dispatcher(is_inline=True)),
    "ensemble, one at a time": lambda: ensemble(table(), max_under_way=1),
    "ensemble of ensembles": lambda: ensemble(ensemble(table())),
    "cache around an ensemble": lambda: cached(ensemble(table())),
}


@pytest.fixture(params=SERVABLES)
async def servable(request: pytest.FixtureRequest) -> Servable:
    return SERVABLES[request.param]()


def call(
    value: float, size: int = 4, *, finish: Callable[[InferenceResponse], InferenceResponse] | None = None
) -> Call:
    x = np.full((1, size), value, np.float32)
    finisher = None if finish is None else Finisher(finish, frozenset(["y"]))
    return Call(InferenceRequest("doubler", {"x": x}, id=str(value)), {"x": x}, 1, finisher)


def value_of(response: InferenceResponse) -> float:
    assert set(response.outputs["y"].ravel().tolist()) == {response.outputs["y"].ravel()[0]}
    return float(response.outputs["y"].ravel()[0])


async def test_each_request_gets_its_own_answer_and_id(servable: Servable) -> None:
    values = [1.0, 2.0, 1.0, 3.0, 2.0, 1.0]
    answers = await asyncio.gather(*(servable.submit(call(value)) for value in values))
    answers += await asyncio.gather(*(servable.submit(call(value)) for value in values))
    assert [value_of(each) for each in answers] == [2 * value for value in values] * 2
    assert [each.id for each in answers] == [str(value) for value in values] * 2
    assert servable.statistics.success.count == 12
    assert servable.statistics.num_pending == 0
    await servable.close()


@pytest.mark.parametrize("size", [4, 100_000])
async def test_sizes(servable: Servable, size: int) -> None:
    for value in (1.0, 1.0, 2.0):
        answer = await servable.submit(call(value, size))
        assert answer.outputs["y"].shape == (1, size)
        assert value_of(answer) == 2 * value
    await servable.close()


async def test_a_failure_is_its_own_requests(servable: Servable) -> None:
    futures = [servable.submit(call(value)) for value in (1.0, POISON, 2.0, POISON)]
    answers = await asyncio.gather(*futures, return_exceptions=True)
    assert [isinstance(each, TriuneError) for each in answers] == [False, True, False, True]
    assert servable.statistics.success.count == 2
    assert sum(servable.statistics.failures.values()) == 2
    await servable.close()


async def test_the_answer_is_finished(servable: Servable) -> None:
    def finish(response: InferenceResponse) -> InferenceResponse:
        response.outputs = {"y": response.outputs["y"] + 1}
        return response

    for _ in range(3):
        assert value_of(await servable.submit(call(1.0, finish=finish))) == 3
    await servable.close()


async def test_what_a_client_does_to_its_answer_is_not_seen_by_the_next(servable: Servable) -> None:
    for _ in range(3):
        response = await servable.submit(call(1.0))
        assert value_of(response) == 2
        response.outputs["z"] = response.outputs.pop("y")
    await servable.close()


async def test_a_stream_has_the_one_answer(servable: Servable) -> None:
    for _ in range(2):
        assert [value_of(each) async for each in servable.stream(call(4.0))] == [8]
    await servable.close()


async def test_who_gives_up_costs_nobody_else(servable: Servable) -> None:
    futures = [servable.submit(call(value, 20_000)) for value in (1.0, 2.0, 3.0)]
    futures[1].cancel()
    answers = await asyncio.gather(*futures, return_exceptions=True)
    assert [value_of(each) for each in (answers[0], answers[2]) if isinstance(each, InferenceResponse)] == [2, 6]
    await asyncio.wait_for(servable.drain(), 10)
    assert servable.statistics.num_pending == 0
    await servable.close()


async def test_drain_waits_for_what_is_under_way_and_close_refuses_what_comes(servable: Servable) -> None:
    futures = [servable.submit(call(value, 20_000)) for value in (1.0, 1.0, 2.0)]
    await asyncio.wait_for(servable.drain(), 10)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert all(each.done() for each in futures)
    await asyncio.wait_for(servable.close(), 10)
    with pytest.raises(UnavailableError):
        await servable.submit(call(1.0))
