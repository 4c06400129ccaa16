"""What every servable of tensors owes beside: rows of any size, and the answer's own conversion."""

import asyncio

import pytest

from contract.scheduling.subjects import TENSOR_SERVABLES, half_of, row
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.core.servable import Call, Finisher, Servable


@pytest.fixture(params=TENSOR_SERVABLES)
async def servable(request: pytest.FixtureRequest) -> Servable:
    return TENSOR_SERVABLES[request.param]()


def call(value: float, size: int = 4, *, finish: Finisher | None = None) -> Call:
    inputs = row(value, size)
    return Call(InferenceRequest("doubler", dict(inputs), id=str(value)), inputs, 1, finish)


@pytest.mark.parametrize("size", [4, 100_000])
async def test_sizes(servable: Servable, size: int) -> None:
    for value in (1.0, 1.0, 2.0):
        answer = await servable.submit(call(value, size))
        assert answer.outputs["y"].shape == (1, size)
        assert half_of([answer]) == value
    await servable.close()


async def test_the_outputs_are_finished_once(servable: Servable) -> None:
    def finish(response: InferenceResponse) -> InferenceResponse:
        response.outputs = {"y": response.outputs["y"] + 1}
        return response

    for _ in range(3):
        assert half_of([await servable.submit(call(1.0, finish=Finisher(finish, frozenset(["y"]))))]) == 1.5
    await servable.close()


async def test_a_future_that_is_cancelled_costs_nobody_else(servable: Servable) -> None:
    futures = [servable.submit(call(value, 20_000)) for value in (1.0, 2.0, 3.0)]
    futures[1].cancel()
    answers = await asyncio.gather(*futures, return_exceptions=True)
    assert [half_of([each]) for each in (answers[0], answers[2]) if isinstance(each, InferenceResponse)] == [1, 3]
    await asyncio.wait_for(servable.drain(), 60)
    assert servable.statistics.num_pending == 0
    await servable.close()


async def test_all_futures_are_done_when_drained(servable: Servable) -> None:
    futures = [servable.submit(call(value, 20_000)) for value in (1.0, 1.0, 2.0)]
    await asyncio.wait_for(servable.drain(), 60)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert all(each.done() for each in futures)
    await servable.close()
