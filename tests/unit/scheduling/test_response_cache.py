"""The response cache: what it keeps, what it forgets, and what makes two requests the same."""

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.table_servable import TableServable
from triune.core.clock import MonotonicClock
from triune.core.datatypes import Array
from triune.core.errors import InternalError
from triune.core.requests import InferenceRequest, InferenceResponse, RequestedOutput
from triune.core.servable import Call
from triune.scheduling.response_cache import ENTRY_BYTES, CachedServable, ResponseCache, key_of


def call_of(*outputs: RequestedOutput, parameters: dict[str, Any] | None = None, **inputs: Array) -> Call:
    return Call(InferenceRequest("m", inputs, outputs=outputs, parameters=parameters or {}), inputs, 1)


def objects(*elements: bytes) -> Array:
    array = np.empty(len(elements), np.object_)
    array[:] = elements
    return array


X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize(
    "other",
    [
        call_of(x=X + 1),
        call_of(x=X.reshape(3, 2)),
        call_of(x=X.astype(np.int32)),
        call_of(z=X),
        call_of(x=X, z=X),
        call_of(RequestedOutput("y"), x=X),
        call_of(RequestedOutput("y", 3), x=X),
        call_of(x=X, parameters={"seed": 1}),
        call_of(x=objects(b"ab", b"c")),
    ],
)
def test_other_requests_have_other_keys(other: Call) -> None:
    assert key_of(other, 1) != key_of(call_of(x=X), 1)


def test_the_same_request_has_the_same_key_and_another_servable_has_not() -> None:
    assert key_of(call_of(x=X, z=X), 1) == key_of(call_of(z=X.copy(), x=np.asfortranarray(X)), 1)
    assert key_of(call_of(x=X), 1) != key_of(call_of(x=X), 2)
    assert key_of(call_of(x=objects(b"ab", b"c")), 1) != key_of(call_of(x=objects(b"a", b"bc")), 1)
    for scalar in (np.array(True), np.array(1.5), np.zeros((0, 3), np.float16)):
        assert key_of(call_of(x=scalar), 1) == key_of(call_of(x=scalar.copy()), 1)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 60)), max_size=60))
def test_the_cache_never_holds_more_than_it_may(puts: list[tuple[int, int]]) -> None:
    cache, siblings, sizes = ResponseCache(100), set[bytes](), dict[bytes, int]()
    for number, size in puts:
        key = bytes([number])
        cache.put(key, InferenceResponse("m", 1, {}), size, siblings)
        sizes[key] = size
        assert cache.get(key) is not None
        assert cache.num_bytes == sum(sizes[each] for each in siblings) <= 100
        assert len(cache) == len(siblings)


def test_what_was_not_asked_for_longest_goes_first() -> None:
    cache, siblings = ResponseCache(3), set[bytes]()
    for key in (b"a", b"b", b"c"):
        cache.put(key, InferenceResponse("m", 1, {}), 1, siblings)
    cache.get(b"a")
    cache.put(b"d", InferenceResponse("m", 1, {}), 1, siblings)
    assert siblings == {b"a", b"c", b"d"}
    cache.put(b"e", InferenceResponse("m", 1, {}), 4, siblings)
    assert siblings == {b"a", b"c", b"d"}


def doubled(call: Call) -> InferenceResponse:
    x = call.inputs["x"]
    if x.dtype.hasobject:
        return InferenceResponse("m", 1, {"y": x})
    return InferenceResponse("m", 1, {"y": np.concatenate([x, x])[: len(x)] * 2})


@pytest.mark.parametrize("x", [X, np.zeros((1, 100_000), np.float32), objects(*[b"a"] * 5000)], ids=len)
async def test_an_answer_is_computed_once_and_counted(x: Array) -> None:
    table = TableServable(doubled)
    cached = CachedServable(table, ResponseCache(1 << 22), MonotonicClock())
    answers = []
    for _ in range(3):
        answers.append(await cached.submit(call_of(x=x)))
        while asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.sleep(0.001)
    assert len(table.calls) == 1
    for each in answers:
        np.testing.assert_array_equal(each.outputs["y"], answers[0].outputs["y"])
    assert (cached.statistics.cache_hit.count, cached.statistics.cache_miss.count) == (2, 1)
    assert (cached.statistics.success.count, cached.statistics.num_inferences) == (3, 1)
    assert not answers[1].outputs["y"].flags.writeable


async def test_what_failed_is_computed_again() -> None:
    def fail(_: Call) -> InferenceResponse:
        raise InternalError("no")

    table = TableServable(fail)
    cached = CachedServable(table, ResponseCache(1 << 20), MonotonicClock())
    for _ in range(2):
        with pytest.raises(InternalError):
            await cached.submit(call_of(x=X))
    assert len(table.calls) == 2


async def test_a_closed_servables_answers_are_forgotten_and_no_others() -> None:
    cache = ResponseCache(1 << 20)
    first, second = (CachedServable(TableServable(doubled), cache, MonotonicClock()) for _ in range(2))
    for each in (first, second):
        await each.submit(call_of(x=X))
        await asyncio.sleep(0)
    assert len(cache) == 2
    await first.close()
    assert len(cache) == 1
    assert cache.num_bytes == ENTRY_BYTES + X.nbytes


async def test_an_answer_that_is_here_waits_for_those_before_it_where_order_is_kept() -> None:
    table = TableServable(doubled)
    cached = CachedServable(table, ResponseCache(1 << 20), MonotonicClock(), is_ordered=True)
    await cached.submit(call_of(x=X))
    await asyncio.sleep(0)
    table.gate.clear()
    slow, quick = cached.submit(call_of(x=X + 1)), cached.submit(call_of(x=X))
    await asyncio.sleep(0.01)
    assert not quick.done()
    table.gate.set()
    await asyncio.wait_for(quick, 60)
    assert slow.done()
