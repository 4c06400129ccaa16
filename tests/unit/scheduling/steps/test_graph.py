"""What a graph of steps does beside what every servable does: order, slots, what is left out, what is counted."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from support.hand import Ticking
from support.steps import Shelf, fp32, graph, on_shelf, step, table_model
from triune.core.clock import VirtualClock
from triune.core.datatypes import Array
from triune.core.errors import InternalError, InvalidArgumentError, NotFoundError, UnavailableError
from triune.core.requests import InferenceRequest, InferenceResponse, Parameter, RequestedOutput
from triune.core.servable import Call, ComputeTime, Finisher
from triune.core.statistics import FailureReason
from triune.scheduling.models import LoadedVersion
from triune.scheduling.steps.graph import StepGraph
from triune.scheduling.steps.run import Value, fit


def copy(name: str, *, is_optional: bool = False) -> LoadedVersion:
    """y is x, and so is z."""
    inputs = [replace(each, is_optional=is_optional) for each in fp32("x", "w")[: 1 + is_optional]]
    return table_model(name, inputs, fp32("y", "z"), lambda given: {"y": given["x"], "z": given["x"]})


def chain(*models: LoadedVersion, **options: object) -> tuple[StepGraph, Shelf]:
    shelf = Shelf(*models)
    names = ["x", *(f"t{index}" for index in range(1, len(models))), "y"]
    steps = [
        step(index, each.config.name, {"x": names[index]}, {"y": names[index + 1]}) for index, each in enumerate(models)
    ]
    return graph(shelf, steps, fp32("x"), fp32("y"), **options), shelf  # pyright: ignore[reportArgumentType]


def call(value: float = 1.0, rows: int = 1, outputs: Sequence[str] = (), **parameters: Parameter) -> Call:
    x = np.full((rows, 2), value, np.float32)
    wanted = tuple(map(RequestedOutput, outputs))
    request = InferenceRequest(
        "ensemble", {"x": x}, outputs=wanted, id="me", parameters=parameters, priority=2, timeout_us=7
    )
    return Call(request, {"x": x}, rows)


async def test_what_a_step_is_asked() -> None:
    ensemble, shelf = chain(copy("a"), copy("b"))
    given = call(3.0, 2, sequence_id="s", sequence_start=True, mine=1)
    response = await ensemble.submit(given)
    assert response.outputs["y"] is given.inputs["x"], "tensors go on as they are"
    assert (response.model, response.id) == ("ensemble", "me")
    assert response.parameters == {"sequence_id": "s", "sequence_start": True, "sequence_end": False}
    for name in ("a", "b"):
        (asked,) = shelf.table(name).calls
        request = asked.request
        assert (request.model, request.id, request.priority, request.timeout_us) == (name, "me", 2, 7)
        assert request.parameters == given.request.parameters
        assert [each.name for each in request.outputs] == ["y"], "what no step maps is not asked for"
        assert asked.batch_size == 2


async def test_what_is_counted() -> None:
    ensemble, _ = chain(copy("a"), copy("b"))
    given = call(rows=3)
    given.compute_time = ComputeTime()
    await ensemble.submit(given)
    counted = ensemble.statistics
    assert (counted.success.count, counted.num_inferences, counted.num_executions, counted.num_pending) == (1, 3, 1, 0)
    assert (counted.compute_input.total_ns, counted.compute_infer.total_ns, counted.compute_output.total_ns) == (
        2,
        4,
        6,
    )
    assert counted.queue.total_ns == counted.num_waiting == 0
    assert (list(counted.batches), counted.batches[3].compute_infer.total_ns) == ([3], 4)
    assert counted.unit_inferences == {}, "the models' units count their own"
    assert given.compute_time == ComputeTime(2, 4, 6)


async def test_what_is_left_out_is_not_handed_on() -> None:
    first, second = copy("a", is_optional=True), copy("b", is_optional=True)
    steps = [
        step(0, "a", {"x": "x", "w": "w"}, {"y": "t", "z": "unused"}),
        step(1, "b", {"x": "t", "w": "unused"}, {"y": "y", "z": "z"}),
    ]
    some = table_model("a", [*first.config.inputs.values()], fp32("y", "z"), lambda given: {"y": given["x"]})
    shelf = Shelf(some, second)
    ensemble = graph(shelf, steps, fp32("x", "w"), fp32("y", "z"))
    response = await ensemble.submit(call())
    assert list(response.outputs) == ["y", "z"]
    for name in ("a", "b"):
        assert list(shelf.table(name).calls[0].inputs) == ["x"], "neither the input nor what the model did not give"


async def test_an_input_may_be_an_output() -> None:
    shelf = Shelf(copy("a"))
    ensemble = graph(shelf, [step(0, "a", {"x": "x"}, {"y": "y"})], fp32("x"), fp32("x", "y"))
    response = await ensemble.submit(call(5.0, outputs=["x"]))
    assert (list(response.outputs), shelf.table("a").calls) == (["x"], [])
    assert list((await ensemble.submit(call(5.0))).outputs) == ["x", "y"]


async def test_those_that_wait_for_a_slot() -> None:
    ensemble, shelf = chain(copy("a"), max_under_way=1, max_waiting=2)
    table = shelf.table("a")
    table.gate.clear()
    futures = [ensemble.submit(call(value)) for value in (1.0, 2.0, 3.0)]
    refused = ensemble.submit(call(4.0))
    with pytest.raises(
        UnavailableError, match="in ensemble 'ensemble', Exceeds maximum queue size of a step, 2: .*step 0"
    ):
        await refused
    futures[1].cancel()
    await asyncio.sleep(0)
    futures.append(ensemble.submit(call(5.0)))
    assert [each.inputs["x"][0, 0] for each in table.calls] == [1]
    table.gate.set()
    answers = [float((await futures[index]).outputs["y"][0, 0]) for index in (0, 2, 3)]
    assert answers == [1, 3, 5]
    assert [each.inputs["x"][0, 0] for each in table.calls] == [1, 3, 5], "first come, first served"
    await ensemble.close()


class Inline:
    """Answers at once."""

    def __init__(self) -> None:
        self.statistics = table_model("none", [], [], lambda _: {}).servable.statistics

    def submit(self, asked: Call) -> asyncio.Future[InferenceResponse]:
        future: asyncio.Future[InferenceResponse] = asyncio.get_running_loop().create_future()
        future.set_result(InferenceResponse("m", 1, {"y": asked.inputs["x"] + 1}))
        return future


async def test_many_small_models_in_a_row_neither_recurse_nor_hold_the_loop() -> None:
    models = [on_shelf(f"m{index}", fp32("x"), fp32("y"), Inline()) for index in range(2000)]  # pyright: ignore[reportArgumentType]
    ensemble, _ = chain(*models)
    assert (await ensemble.submit(call(0.0))).outputs["y"][0, 0] == 2000
    few, _ = chain(*models[:3], clock=VirtualClock())
    assert few.submit(call(0.0)).done(), "nothing has waited"
    slow, _ = chain(*models[:100], clock=Ticking())
    future = slow.submit(call(0.0))
    turns = 0
    while not future.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 10
    assert future.result().outputs["y"][0, 0] == 100


@pytest.mark.parametrize("size", [1, 100_000])
async def test_an_answer_that_cannot_be_finished(size: int) -> None:
    ensemble, _ = chain(copy("a"))

    def finish(response: InferenceResponse) -> InferenceResponse:
        if response.outputs["y"][0, 0] < 0:
            raise InvalidArgumentError("it is negative")
        return response

    for value in (1.0, -1.0):
        given = call(value)
        given.inputs = {"x": np.full((1, size), value, np.float32)}
        given.finish = Finisher(finish, frozenset(["y"]))
        future = ensemble.submit(given)
        if value > 0:
            assert (await future).outputs["y"].shape == (1, size)
        else:
            with pytest.raises(InvalidArgumentError, match="it is negative"):
                await future
    await asyncio.wait_for(ensemble.close(), 60)
    assert ensemble.statistics.failures[FailureReason.OTHER] == 1


async def test_a_model_that_is_not_there_and_a_defect(caplog: pytest.LogCaptureFixture) -> None:
    ensemble, shelf = chain(copy("a"), copy("b"))
    gone = shelf.models.pop("b")
    with pytest.raises(
        NotFoundError, match=r"in ensemble 'ensemble', Request for unknown model: 'b' is not found \(step 1"
    ):
        ensemble.submit(call())
    assert ensemble.statistics.failures[FailureReason.REJECTED] == 1
    assert shelf.models["a"].holds.num == 0

    def broken(_: Call) -> asyncio.Future[InferenceResponse]:
        raise KeyError("nobody has thought of this")

    shelf.models["b"] = gone
    shelf.table("b").submit = broken  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(InternalError, match=r"in ensemble 'ensemble', unexpected KeyError.*\(step 1, model 'b'\)"):
        await ensemble.submit(call())
    assert "Traceback" in caplog.text
    await asyncio.wait_for(ensemble.close(), 60)
    assert [each.holds.num for each in shelf.models.values()] == [0, 0]


@pytest.mark.parametrize(
    ("shape", "batch_size", "dims", "has_batch", "expected"),
    [
        ((3, 4), 3, (4,), True, (3, 4)),
        ((4,), 0, (4,), False, (4,)),
        ((4,), 0, (4,), True, (1, 4)),
        ((3, 4), 0, (4,), True, (3, 4)),
        ((3, 4), 3, (-1, 4), False, (3, 4)),
        ((1, 4), 1, (4,), False, (4,)),
        ((3, 4), 3, (4,), False, (3, 4)),
    ],
)
def test_with_a_batch_dimension_and_without(
    shape: tuple[int, ...], batch_size: int, dims: tuple[int, ...], has_batch: bool, expected: tuple[int, ...]
) -> None:
    array: Array = np.zeros(shape, np.float32)
    found = fit(Value(array, batch_size), dims, has_batch=has_batch)
    assert found is not None
    assert found.shape == expected
    assert np.shares_memory(found, array)


async def test_a_late_request_fails_and_the_others_go_on() -> None:
    clock = VirtualClock()
    ensemble, shelf = chain(copy("a"), copy("b"), clock=clock, run_limit_seconds=40.0)
    late = ensemble.submit(call(1.0))
    clock.advance(30 * 10**9)
    other = ensemble.submit(call(2.0))
    clock.advance(15 * 10**9)
    with pytest.raises(UnavailableError, match="did not answer within 40 s, and its steps were cancelled"):
        late.result()
    assert (await other).outputs["y"][0, 0] == 2.0
    assert len(shelf.table("b").calls) == 1, "the late request went no further"
    clock.advance(60 * 10**9)
    counted = ensemble.statistics
    assert (counted.success.count, counted.num_pending) == (1, 0)
    await asyncio.wait_for(ensemble.close(), 60)
