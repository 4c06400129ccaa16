"""What every servable owes: each answer once, errors typed, cancelling, refusing, draining, closing."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from contract.scheduling.subjects import SUBJECTS, Subject, responses_of
from triune.core.errors import TriuneError, UnavailableError, UnsupportedError
from triune.core.requests import InferenceResponse
from triune.core.servable import Call, Finisher, Servable


@pytest.fixture(params=SUBJECTS)
def subject(request: pytest.FixtureRequest) -> Subject:
    return SUBJECTS[request.param]


@pytest.fixture
async def servable(subject: Subject) -> AsyncIterator[Servable]:
    """It is closed when the test ends; closing it again does no harm."""
    made = subject.make()
    yield made
    await asyncio.wait_for(made.close(), 60)
    assert made.statistics.num_pending == 0


def ask(servable: Servable, call: Call) -> "asyncio.Task[list[InferenceResponse]]":
    return asyncio.create_task(responses_of(servable, call))


async def begun(*tasks: "asyncio.Task[list[InferenceResponse]]") -> None:
    """Let tasks send their requests."""
    assert tasks
    await asyncio.sleep(0)


async def test_each_request_gets_its_own_answer_and_id(subject: Subject, servable: Servable) -> None:
    values = [1, 2, 1, 3, 2, 1]
    for _ in range(2):
        answers = await asyncio.gather(*(ask(servable, subject.call(value)) for value in values))
        assert [subject.value_of(each) for each in answers] == values
        assert [{response.id for response in each} for each in answers] == [{str(value)} for value in values]
        for each in answers:
            assert [response.is_final for response in each] == [False] * (len(each) - 1) + [True]
    assert servable.statistics.success.count == 12
    assert servable.statistics.num_pending == 0


async def test_submit_gives_the_only_response_or_refuses(subject: Subject, servable: Servable) -> None:
    if subject.is_decoupled:
        with pytest.raises(UnsupportedError, match="decoupled"):
            servable.submit(subject.call(1))
    else:
        assert subject.value_of([await servable.submit(subject.call(1))]) == 1


async def test_a_failure_is_its_own_requests(subject: Subject, servable: Servable) -> None:
    calls = [subject.call(1), subject.poisoned(), subject.call(2), subject.poisoned()]
    answers = await asyncio.gather(*(ask(servable, each) for each in calls), return_exceptions=True)
    assert [isinstance(each, TriuneError) for each in answers] == [False, True, False, True]
    assert [subject.value_of(each) for each in answers if isinstance(each, list)] == [1, 2]
    assert servable.statistics.success.count == 2
    assert sum(servable.statistics.failures.values()) == 2


async def test_each_response_is_finished(subject: Subject, servable: Servable) -> None:
    def finish(response: InferenceResponse) -> InferenceResponse:
        response.parameters = {"finished": True}
        return response

    for _ in range(3):
        call = subject.call(1)
        call.finish = Finisher(finish, frozenset())
        assert [each.parameters for each in await responses_of(servable, call)][-1] == {"finished": True}


async def test_what_a_client_does_to_its_answer_is_not_seen_by_the_next(subject: Subject, servable: Servable) -> None:
    for _ in range(3):
        responses = await responses_of(servable, subject.call(1))
        assert subject.value_of(responses) == 1
        responses[0].outputs.clear()


async def test_who_gives_up_costs_nobody_else(subject: Subject, servable: Servable) -> None:
    tasks = [ask(servable, subject.call(value)) for value in (1, 2, 3)]
    await begun(*tasks)
    tasks[1].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [subject.value_of(each) for each in (answers[0], answers[2]) if isinstance(each, list)] == [1, 3]
    await asyncio.wait_for(servable.drain(), 60)
    assert servable.statistics.num_pending == 0
    assert subject.value_of(await responses_of(servable, subject.call(4))) == 4


async def test_a_stream_that_is_closed_ends_its_request(subject: Subject, servable: Servable) -> None:
    stream = servable.stream(subject.call(1))
    await anext(stream)
    await stream.aclose()
    await asyncio.wait_for(servable.drain(), 60)
    assert servable.statistics.num_pending == 0


async def test_refuse_lets_what_runs_finish_and_takes_nothing_new(subject: Subject, servable: Servable) -> None:
    assert subject.value_of(await responses_of(servable, subject.call(1))) == 1
    tasks = [ask(servable, subject.call(value)) for value in (1, 2)]
    await begun(*tasks)
    servable.refuse()
    with pytest.raises(UnavailableError):
        await responses_of(servable, subject.call(3))
    for answer in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(answer, list | UnavailableError)
    await asyncio.wait_for(servable.drain(), 60)
    assert servable.statistics.num_pending == 0


async def test_drain_waits_for_what_is_under_way_and_close_refuses_what_comes(
    subject: Subject, servable: Servable
) -> None:
    tasks = [ask(servable, subject.call(value)) for value in (1, 1, 2)]
    await begun(*tasks)
    await asyncio.wait_for(servable.drain(), 60)
    # Drained, nothing has to be computed any more: the answers only have to be passed on.
    assert [subject.value_of(each) for each in await asyncio.gather(*tasks)] == [1, 1, 2]
    assert servable.statistics.success.count == 3
    await asyncio.wait_for(servable.close(), 60)
    with pytest.raises(UnavailableError):
        await responses_of(servable, subject.call(1))
