"""Whatever graph, and whatever happens in whatever order: every request gets exactly its own answer."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from support.examples import examples
from support.steps import Shelf, fp32, graph, on_shelf, step
from triune.config.ensemble.steps import Step
from triune.core.errors import InternalError, TriuneError, UnavailableError
from triune.core.requests import InferenceRequest, InferenceResponse, RequestedOutput
from triune.core.servable import Call, only_answer
from triune.core.statistics import FailureReason, ModelStatistics

MAX_STEPS = 6


class HandServable:
    """Answers when the test says so, or at once. y0 is the sum of the inputs times a factor, y1 that plus 1."""

    def __init__(self, factor: int, *, is_inline: bool) -> None:
        self.statistics = ModelStatistics()
        self.open: list[tuple[Call, asyncio.Future[InferenceResponse]]] = []
        self.num_open_most = 0
        self.is_full = False
        self._factor = factor
        self._is_inline = is_inline

    def submit(self, call: Call) -> asyncio.Future[InferenceResponse]:
        if self.is_full:
            raise UnavailableError("Exceeds maximum queue size")
        future: asyncio.Future[InferenceResponse] = asyncio.get_running_loop().create_future()
        self.open.append((call, future))
        self.num_open_most = max(self.num_open_most, self.num_open)
        if self._is_inline:
            self.answer(0)
        return future

    @property
    def num_open(self) -> int:
        self.open = [each for each in self.open if not each[1].done()]
        return len(self.open)

    def answer(self, index: int, error: Exception | None = None) -> None:
        if not self.num_open:
            return
        call, future = self.open[index % self.num_open]
        if error is not None:
            future.set_exception(error)
            return
        total = sum(call.inputs.values()) * self._factor
        future.set_result(InferenceResponse(call.request.model, 1, {"y0": total, "y1": total + 1}, call.request.id))

    def stream(self, call: Call) -> AsyncGenerator[InferenceResponse]:
        return only_answer(self, call)

    def refuse(self) -> None: ...
    async def drain(self) -> None: ...
    async def close(self) -> None: ...


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Step], list[str], list[bool]]:
    """Steps, the tensors that are outputs, and which steps answer at once. Some steps nobody needs."""
    tensors = ["a", "b"]
    steps: list[Step] = []
    for number in range(draw(st.integers(1, MAX_STEPS))):
        read = draw(st.lists(st.sampled_from(tensors), min_size=1, max_size=3))
        inputs = {f"x{index}": tensor for index, tensor in enumerate(read)}
        written = {f"y{index}": f"t{number}.{index}" for index in range(draw(st.integers(1, 2)))}
        steps.append(step(number, f"m{number}", inputs, written))
        tensors += written.values()
    outputs = draw(st.lists(st.sampled_from(tensors[2:]), min_size=1, max_size=3, unique=True))
    return steps, outputs, draw(st.lists(st.booleans(), min_size=len(steps), max_size=len(steps)))


scripts = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 7)),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        st.tuples(st.just("answer"), st.integers(0, MAX_STEPS), st.integers(0, 5)),
        st.tuples(st.just("fail"), st.integers(0, MAX_STEPS), st.integers(0, 5)),
        st.tuples(st.just("fill"), st.integers(0, MAX_STEPS), st.booleans()),
        st.tuples(st.just("turn")),
    ),
    max_size=40,
)


def expected(steps: list[Step], value: float) -> Mapping[str, float]:
    tensors = {"a": value, "b": value + 0.5}
    for each in steps:
        total = sum(tensors[tensor] for tensor in each.inputs.values()) * (each.number + 2)
        tensors.update({tensor: total + (own == "y1") for own, tensor in each.outputs.items()})
    return tensors


@examples(300)
@given(shape=graphs(), script=scripts, limit=st.integers(0, 2))
def test_every_request_gets_its_own_answer(
    shape: tuple[list[Step], list[str], list[bool]], script: list[tuple[Any, ...]], limit: int
) -> None:
    asyncio.run(play(*shape, script, limit))


async def play(
    steps: list[Step], outputs: list[str], inline: list[bool], script: list[tuple[Any, ...]], limit: int
) -> None:
    servables = [
        HandServable(each.number + 2, is_inline=is_inline) for each, is_inline in zip(steps, inline, strict=True)
    ]
    shelf = Shelf(
        *(
            on_shelf(each.model, fp32(*each.inputs), fp32("y0", "y1"), servable)
            for each, servable in zip(steps, servables, strict=True)
        )
    )
    ensemble = graph(shelf, steps, fp32("a", "b"), fp32(*outputs), max_under_way=limit)
    sent: list[tuple[float, list[str], asyncio.Future[InferenceResponse]]] = []
    for action in script:
        match action:
            case ("send", mask):
                value = float(len(sent) + 1)
                asked = [each for index, each in enumerate(outputs) if mask >> index & 1]
                inputs = {"a": np.full((1, 2), value), "b": np.full((1, 2), value + 0.5)}
                inputs = {name: array.astype(np.float32) for name, array in inputs.items()}
                request = InferenceRequest(
                    "ensemble", inputs, outputs=tuple(map(RequestedOutput, asked)), id=str(value)
                )
                sent.append((value, asked or outputs, ensemble.submit(Call(request, inputs, 1))))
            case ("cancel", index) if sent:
                sent[index % len(sent)][2].cancel()
            case ("answer", number, index):
                servables[number % len(steps)].answer(index)
            case ("fail", number, index):
                servables[number % len(steps)].answer(index, InternalError("it broke"))
            case ("fill", number, is_full):
                servables[number % len(steps)].is_full = is_full
            case ("turn",):
                await asyncio.sleep(0)
            case _:
                pass
        if limit:
            assert all(each.num_open_most <= limit for each in servables)
    for each in servables:
        each.is_full = False
    for _ in range(2 * len(steps) * (len(sent) + 1)):
        for each in servables:
            each.answer(0)
        await asyncio.sleep(0)
    counted = dict.fromkeys(("answered", "cancelled", "failed"), 0)
    for value, asked, future in sent:
        assert future.done(), "a request was lost"
        if future.cancelled():
            counted["cancelled"] += 1
        elif error := future.exception():
            assert isinstance(error, TriuneError)
            assert str(error).startswith("in ensemble 'ensemble', ")
            assert "(step " in str(error)
            counted["failed"] += 1
        else:
            tensors = expected(steps, value)
            given_back = future.result().outputs
            assert list(given_back) == asked
            assert {name: float(array[0, 0]) for name, array in given_back.items()} == {
                name: np.float32(tensors[name]) for name in asked
            }, "a request got another's tensors"
            counted["answered"] += 1
    assert [each.num_open for each in servables] == [0] * len(steps), "a step was left running"
    assert [each.holds.num for each in shelf.models.values()] == [0] * len(steps), "a model is still held"
    await asyncio.wait_for(ensemble.close(), 60)
    statistics = ensemble.statistics
    assert statistics.num_pending == 0
    assert statistics.success.count == counted["answered"]
    assert statistics.failures[FailureReason.CANCELED] == counted["cancelled"]
    assert statistics.failures[FailureReason.OTHER] == counted["failed"]
