"""One model on several units: where answers are computed, and that they go on wherever they are moved to."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from support.copying import SCRIPT, CopyingDecoder
from support.scripted import POISON, ScriptedDecoder, replicated_engine, text_of
from triune.core.clock import VirtualClock
from triune.core.errors import InternalError, InvalidArgumentError, NotFoundError, UnavailableError
from triune.core.power import Power, PowerMode
from triune.core.units import Unit
from triune.engine.engine import Engine
from triune.engine.generation import Delta, Generation, Usage
from triune.engine.replicas.rates import Rates as MeasuredRates
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.sequence import FinishReason
from triune.hardware.heat.slowing import LASTING_NS

CPU, AMX, GPU = Unit.CPU, Unit.AMX, Unit.GPU
GREEDY = SamplingParameters(temperature=0)
LENGTH = 30
PROMPT = "The day: "
MS = 1_000_000


def asked(**changes: Any) -> Generation:
    return Generation(**{"prompt": PROMPT, "sampling": GREEDY, "max_tokens": LENGTH, "id": "a", **changes})


def expected(num_prompt: int = len(PROMPT), length: int = LENGTH) -> list[int]:
    return [SCRIPT[at % len(SCRIPT)] for at in range(num_prompt, num_prompt + length)]


class Rates(MeasuredRates):
    """Rates that stay as they were first, whatever steps take."""

    def record(self, num_prompt_tokens: int, num_answers: int, duration_ns: int, *, is_beside: bool) -> None:
        """Nothing changes."""


def rates(prompt_ms: float, answer_ms: float, *, copy_ns: float = 1e9) -> Rates:
    """100 tokens of a prompt are read in `prompt_ms`, and a token of an answer takes `answer_ms`."""
    found = Rates(512)
    for count in (1, 100):
        found.alone.record(count, 0, round(prompt_ms * count / 100 * MS))
    found.alone.record(0, 1, round(answer_ms * MS))
    found.out_ns = found.in_ns = copy_ns
    return found


async def read(
    engine: Engine, request: Generation, then: Callable[[int], object] = lambda count: None
) -> tuple[list[int], Usage]:
    """The tokens of an answer, and what it cost; `then` is called after each delta with their number, and awaited."""
    tokens: list[int] = []
    last: Delta | None = None
    async for last in engine.generate(request):
        tokens += last.tokens
        if last.finish_reason is None and (waiting := then(len(tokens))) is not None:
            await waiting  # type: ignore[misc]
    assert last is not None
    assert last.usage is not None
    return tokens, last.usage


def stopping(decoder: CopyingDecoder, after: int) -> CopyingDecoder:
    """Have the decoder wait after so many more steps, until it is released."""
    decoder.last = len(decoder.steps) + after
    return decoder


def release_soon(decoder: CopyingDecoder) -> None:
    """Let the decoder go on after the tasks that are due: a move that was begun has then reached the unit's thread."""
    loop = asyncio.get_running_loop()
    loop.call_soon(loop.call_soon, decoder.release)


def two() -> dict[Unit, CopyingDecoder]:
    """Decoders with blocks of two sizes."""
    return {CPU: CopyingDecoder(), AMX: CopyingDecoder(num_blocks=50, block_size=8)}


async def test_an_answer_goes_where_it_ends_first_and_says_why() -> None:
    async with replicated_engine(two(), rates={CPU: rates(100, 10), AMX: rates(20, 10)}) as engine:
        tokens, usage = await read(engine, asked())
        assert tokens == expected()
        assert usage.units == {AMX: LENGTH}
        (placement,) = usage.placements
        assert (placement.unit, placement.runtime) == (AMX, "scripted")
        assert placement.reason.startswith("'amx' was expected to finish it first, in 0.3")
        assert engine.statistics.unit_inferences == {AMX: 1}
        assert set(engine.statistics.unit_busy_ns) == {AMX}
        assert engine.placement.unit is CPU, "the first of its config"


async def test_a_request_may_name_its_unit() -> None:
    async with replicated_engine(two(), rates={CPU: rates(100, 10), AMX: rates(20, 10)}) as engine:
        _, usage = await read(engine, asked(unit=CPU))
        assert usage.units == {CPU: LENGTH}
        assert usage.placements[0].reason == "the request names 'cpu'"
        with pytest.raises(InvalidArgumentError, match="does not run on 'gpu'; it runs on cpu, amx"):
            await read(engine, asked(unit=GPU))


async def test_a_prompt_goes_where_it_is_in_the_cache() -> None:
    prompt = "x" * 40
    async with replicated_engine(two(), rates={CPU: rates(100, 1), AMX: rates(90, 1)}) as engine:
        await read(engine, asked(prompt=prompt, unit=CPU))
        _, usage = await read(engine, asked(prompt=prompt))
        assert usage.units == {CPU: LENGTH}
        assert usage.num_cached_tokens == 36
        assert "with 36 tokens of the prompt in its cache" in usage.placements[0].reason


async def test_queues_are_shared_out() -> None:
    decoders = two()
    for each in decoders.values():
        each.gate.clear()
    async with replicated_engine(decoders, rates={CPU: rates(100, 10), AMX: rates(100, 10)}) as engine:
        tasks = [asyncio.ensure_future(read(engine, asked(id="", prompt="?" * (100 + each)))) for each in range(8)]
        await asyncio.sleep(0.05)
        assert [len(each.jobs) for each in engine.replicas.all] == [4, 4]
        for each in decoders.values():
            each.gate.set()
        for count, task in enumerate(tasks):
            assert (await task)[0] == expected(100 + count)


@pytest.mark.parametrize("after", [1, 2, 7])
@pytest.mark.parametrize("to", [CPU, AMX])
async def test_an_answer_moves_and_its_stream_goes_on(after: int, to: Unit) -> None:
    decoders = two()
    source = AMX if to is CPU else CPU
    stopping(decoders[source], after)
    async with replicated_engine(decoders) as engine:

        def move(count: int) -> object:
            if count != after:
                return None
            moving = asyncio.ensure_future(engine.move("a", to))
            asyncio.get_running_loop().call_later(0.01, decoders[source].release)
            return moving

        tokens, usage = await read(engine, asked(unit=source), move)
        assert tokens == expected()
        given = usage.units[source]
        assert after <= given <= after + 1
        assert usage.units == {source: given, to: LENGTH - given}
        assert [each.unit for each in usage.placements] == [source, to]
        assert usage.placements[1].reason == f"moved from '{source.value}' after {given} tokens: it was asked for"
        assert usage.num_tokens == LENGTH
        assert engine.replicas.moves.counts == {(source, to, "asked"): 1}
        assert engine.statistics.unit_inferences == {to: 1}
        read_there = sum(len(step.input_ids) for step in decoders[to].steps)
        assert read_there <= LENGTH, "the prompt's full blocks were not computed again"


@pytest.mark.parametrize("is_same", [True, False])
async def test_an_answer_moves_on_before_it_begins_where_it_went(is_same: bool) -> None:
    """With or without its keys and values, if they are in another form."""
    decoders = {CPU: CopyingDecoder(), AMX: CopyingDecoder(), GPU: CopyingDecoder(block_size=4 if is_same else 8)}
    stopping(decoders[CPU], 2)
    decoders[AMX].gate.clear()
    async with replicated_engine(decoders) as engine:
        held = asyncio.ensure_future(read(engine, asked(unit=AMX, id="")))
        await asyncio.to_thread(decoders[AMX].entered.wait, 20)

        def move(count: int) -> None:
            if count == 2:
                moving.append(asyncio.ensure_future(engine.move("a", AMX)))
                release_soon(decoders[CPU])

        moving: list[asyncio.Future[None]] = []
        answer = asyncio.ensure_future(read(engine, asked(unit=CPU), move))
        while not engine.replicas.moves.counts:
            await asyncio.sleep(0.001)
        moving.append(asyncio.ensure_future(engine.move("a", GPU)))
        await asyncio.sleep(0.01)
        decoders[AMX].gate.set()
        tokens, usage = await answer
        assert tokens == expected()
        assert [each.unit for each in usage.placements] == [CPU, AMX, GPU]
        assert set(usage.units) == {CPU, GPU}
        await held
        await asyncio.gather(*moving)


async def test_moves_that_cannot_be_are_refused() -> None:
    decoders = two()
    stopping(decoders[CPU], 2)
    async with replicated_engine(decoders) as engine:
        with pytest.raises(NotFoundError, match="no answer 'b' under way"):
            await engine.move("b", AMX)

        async def move(count: int) -> None:
            if count != 2:
                return
            with pytest.raises(InvalidArgumentError, match="does not run on 'gpu'"):
                await engine.move("a", GPU)
            await engine.move("a", CPU)
            release_soon(decoders[CPU])

        tokens, usage = await read(engine, asked(unit=CPU), move)
        assert tokens == expected()
        assert usage.units == {CPU: LENGTH}
        assert engine.replicas.moves.counts == {}


async def test_a_client_that_leaves_while_its_answer_moves_leaves_nothing_behind() -> None:
    decoders = two()
    stopping(decoders[CPU], 2)
    async with replicated_engine(decoders) as engine:
        stream = engine.generate(asked(unit=CPU))
        await anext(stream)
        moving = asyncio.ensure_future(engine.move("a", AMX))
        await asyncio.sleep(0)
        await stream.aclose()
        release_soon(decoders[CPU])
        await asyncio.gather(moving, return_exceptions=True)
        assert engine.replicas.moves.counts == {}
        await text_of(engine, asked(unit=AMX))


async def test_several_answers_move_with_their_first_one() -> None:
    """Those that follow it find its prompt in the cache of the unit that it is on then."""
    decoders = two()
    decoders[CPU].gate.clear()
    async with replicated_engine(decoders) as engine:

        async def all_answers() -> dict[int, list[int]]:
            found: dict[int, list[int]] = {}
            async for delta in engine.generate(asked(num_answers=3, unit=CPU, id="")):
                found.setdefault(delta.index, []).extend(delta.tokens)
            return found

        answers = asyncio.ensure_future(all_answers())
        await asyncio.sleep(0.02)
        engine.replicas.drain(CPU, "the test needs it")
        await asyncio.sleep(0.02)
        decoders[CPU].gate.set()
        assert await answers == {index: expected() for index in range(3)}


async def test_answers_leave_a_hot_unit_and_new_ones_avoid_it() -> None:
    decoders, power = two(), Power()
    stopping(decoders[AMX], 3)
    fast = {CPU: rates(100, 10), AMX: rates(20, 10)}
    async with replicated_engine(decoders, rates=fast, power=power) as engine:

        def heat(count: int) -> None:
            if count == 3:
                power.overrule("", {AMX: "'amx' is at 99 C"})
                # The engine heeds that with the next step.
                decoders[AMX].last += 1
                decoders[AMX].gate.set()
            if count == 4:
                release_soon(decoders[AMX])

        tokens, usage = await read(engine, asked(), heat)
        assert tokens == expected()
        assert [each.unit for each in usage.placements] == [AMX, CPU]
        assert usage.placements[1].reason.endswith("tokens: 'amx' is at 99 C")
        assert engine.replicas.moves.counts == {(AMX, CPU, "hot"): 1}
        assert (await read(engine, asked()))[1].units == {CPU: LENGTH}
        power.overrule("", {})
        assert (await read(engine, asked()))[1].units == {AMX: LENGTH}


async def test_on_low_power_one_unit_computes_all() -> None:
    power = Power(PowerMode.LOW_POWER)
    fast = {CPU: rates(20, 10), AMX: rates(100, 10)}
    async with replicated_engine(two(), rates=fast, power=power) as engine:
        assert (await read(engine, asked()))[1].units == {AMX: LENGTH}, "it comes first in the frugal order"


async def test_a_drained_unit_gets_nothing_until_it_is_told_otherwise() -> None:
    decoders = two()
    stopping(decoders[CPU], 2)
    async with replicated_engine(decoders, rates={CPU: rates(10, 1), AMX: rates(100, 10)}) as engine:

        def drain(count: int) -> None:
            if count == 2:
                engine.replicas.drain(CPU, "it is to be serviced")
                release_soon(decoders[CPU])

        tokens, usage = await read(engine, asked(), drain)
        assert tokens == expected()
        assert [each.unit for each in usage.placements] == [CPU, AMX]
        assert (await read(engine, asked()))[1].units == {AMX: LENGTH}
        engine.replicas.drain(CPU, "")
        assert (await read(engine, asked()))[1].units == {CPU: LENGTH}


async def test_emulated_units_compute_what_names_them_and_what_no_other_can() -> None:
    decoders = {CPU: CopyingDecoder(), GPU: CopyingDecoder()}
    fast = {CPU: rates(100, 10), GPU: rates(1, 1)}
    async with replicated_engine(decoders, rates=fast, emulated=[GPU]) as engine:
        assert (await read(engine, asked()))[1].units == {CPU: LENGTH}
        assert (await read(engine, asked(unit=GPU)))[1].units == {GPU: LENGTH}
        engine.replicas.drain(CPU, "gone")
        assert (await read(engine, asked()))[1].units == {GPU: LENGTH}


async def test_a_unit_that_fails_hands_its_answers_on_once() -> None:
    decoders = two()
    clock = VirtualClock()
    fast = {CPU: rates(10, 1), AMX: rates(100, 10)}
    stopping(decoders[CPU], 3)
    async with replicated_engine(decoders, rates=fast, clock=clock) as engine:

        def fail(count: int) -> None:
            if count == 3:
                decoders[CPU].failure = InternalError("the unit is gone")
                release_soon(decoders[CPU])

        tokens, usage = await read(engine, asked(), fail)
        assert tokens == expected()
        assert usage.units == {CPU: 3, AMX: LENGTH - 3}
        assert usage.placements[1].reason == (
            "begun again after 3 tokens, since the unit 'cpu' failed: the unit is gone"
        )
        assert engine.replicas.moves.counts == {(CPU, AMX, "failed"): 1}
        assert engine.statistics.success.count == 1
        decoders[CPU].failure = None
        assert (await read(engine, asked()))[1].units == {AMX: LENGTH}, "it is left alone for some time"
        clock.advance(10_000 * MS)
        assert (await read(engine, asked()))[1].units == {CPU: LENGTH}, "and then tried again"


async def test_an_answer_that_fails_on_two_units_fails() -> None:
    decoders = two()
    for each in decoders.values():
        each.failure = InternalError("no unit can compute it")
    async with replicated_engine(decoders) as engine:
        with pytest.raises(InternalError, match="no unit can compute it"):
            await read(engine, asked())
        assert sum(len(each.steps) for each in decoders.values()) == 2


async def test_an_answer_that_fails_by_itself_is_not_tried_again() -> None:
    decoders = two()
    async with replicated_engine(decoders) as engine:
        with pytest.raises(InternalError, match="NaN"):
            await read(engine, asked(prompt=[1, POISON], unit=CPU))
        assert not decoders[AMX].steps
        assert engine.replicas.moves.counts == {}


@pytest.mark.parametrize("can_begin_anew", [True, False])
@pytest.mark.parametrize("num_answers", [1, 3])
async def test_the_answers_of_a_lost_thread_are_computed_elsewhere(
    monkeypatch: pytest.MonkeyPatch, num_answers: int, can_begin_anew: bool
) -> None:
    decoders, clock = two(), VirtualClock()
    stopping(decoders[CPU], 4)
    fast = {CPU: rates(10, 1), AMX: rates(100, 10)}
    async with replicated_engine(decoders, rates=fast, clock=clock) as engine:
        core = engine.replicas.all[0].core
        found: dict[int, list[int]] = {}
        async for delta in engine.generate(asked(num_answers=num_answers)):
            found.setdefault(delta.index, []).extend(delta.tokens)
            if not decoders[CPU].gate.is_set():
                monkeypatch.setattr(core, "step", lambda: 1 / 0)
                if not can_begin_anew:
                    monkeypatch.setattr(core, "reset", lambda: 1 / 0)
                release_soon(decoders[CPU])
        assert found == {index: expected() for index in range(num_answers)}
        assert engine.replicas.moves.counts == {(CPU, AMX, "failed"): num_answers}
        assert (await read(engine, asked()))[1].units == {AMX: LENGTH}
        refusal = engine.replicas.all[0].refusal(clock.now_ns())
        assert refusal.startswith("a step failed on 'cpu'" if can_begin_anew else "'cpu' is lost: the engine's")
        monkeypatch.undo()
        clock.advance(10_000 * MS)
        used = CPU if can_begin_anew else AMX
        assert (await read(engine, asked()))[1].units == {used: LENGTH}


async def test_the_answers_of_a_step_that_hangs_are_computed_elsewhere() -> None:
    decoders, clock = two(), VirtualClock()
    stopping(decoders[CPU], 3)
    fast = {CPU: rates(10, 1), AMX: rates(100, 10)}
    async with replicated_engine(decoders, rates=fast, clock=clock, run_limit_seconds=5) as engine:
        answer = asyncio.ensure_future(read(engine, asked()))
        while decoders[CPU].gate.is_set() or not decoders[CPU].entered.is_set():
            await asyncio.sleep(0.001)
        clock.advance(6_000 * MS)
        tokens, usage = await answer
        assert tokens == expected()
        assert usage.units == {CPU: 3, AMX: LENGTH - 3}
        assert "since the unit 'cpu' failed: a step of model 'scripted' on 'cpu' did not end within 5 s" in (
            usage.placements[1].reason
        )
        assert (await read(engine, asked()))[1].units == {AMX: LENGTH}
        release_soon(decoders[CPU])
        while engine.replicas.all[0].stalled:
            await asyncio.sleep(0.001)
        assert (await read(engine, asked()))[1].units == {CPU: LENGTH}


async def test_what_was_hung_and_has_no_other_unit_fails() -> None:
    decoders: Mapping[Unit, ScriptedDecoder] = {CPU: CopyingDecoder()}
    decoders[CPU].gate.clear()
    clock = VirtualClock()
    async with replicated_engine(decoders, clock=clock, run_limit_seconds=5) as engine:
        answer = asyncio.ensure_future(read(engine, asked()))
        await asyncio.to_thread(decoders[CPU].entered.wait, 20)
        clock.advance(6_000 * MS)
        with pytest.raises(UnavailableError, match="did not end within 5 s, and its answers were given up"):
            await answer
        with pytest.raises(UnavailableError, match="runs on; try again later"):
            await read(engine, asked())


async def test_one_unit_reads_the_prompt_and_another_goes_on() -> None:
    reader, writer = rates(10, 50, copy_ns=1000), rates(2000, 1, copy_ns=1000)
    prompt = "x" * 100
    async with replicated_engine(two(), rates={CPU: reader, AMX: writer}) as engine:
        tokens, usage = await read(engine, asked(prompt=prompt, max_tokens=150))
        assert tokens == expected(100, 150)
        assert [each.unit for each in usage.placements] == [CPU, AMX]
        assert usage.units[CPU] < 100 < usage.units[AMX]
        assert usage.placements[0].reason.startswith("'cpu' reads the prompt and 'amx' goes on")
        assert engine.replicas.moves.counts == {(CPU, AMX, "prompt read"): 1}


@pytest.mark.parametrize("named", [None, CPU])
async def test_answers_leave_a_unit_that_has_slowed_down_unless_they_name_it(named: Unit | None) -> None:
    class Slowing(CopyingDecoder):
        def __init__(self, *step_ms: int) -> None:
            super().__init__(num_blocks=1000)
            self.step_ms = step_ms

        def run(self, step):
            clock.advance(self.step_ms[len(self.steps) > 100] * MS)
            return super().run(step)

    clock = VirtualClock()
    slow, steady = Slowing(10, 100), Slowing(12, 12)
    fast = {CPU: MeasuredRates(512), AMX: MeasuredRates(512)}
    for unit, each in fast.items():
        each.record(0, 1, (10 if unit is CPU else 12) * MS, is_beside=False)
    async with replicated_engine({CPU: slow, AMX: steady}, rates=fast, clock=clock) as engine:
        tokens, usage = await read(engine, asked(max_tokens=1000, unit=named))
        assert tokens == expected(length=1000)
        if named is not None:
            assert engine.statistics.slowed == {CPU}
            assert usage.units == {CPU: 1000}
            return
        assert [each.unit for each in usage.placements] == [CPU, AMX]
        assert "steps on 'cpu' take " in usage.placements[1].reason
        assert usage.units[CPU] * 100 * MS >= LASTING_NS
        assert engine.statistics.slowed == {CPU}
        assert (await read(engine, asked()))[1].units == {AMX: LENGTH}


async def test_unloading_lets_moved_answers_end(monkeypatch: pytest.MonkeyPatch) -> None:
    decoders = two()
    decoders[AMX].gate.clear()
    stopping(decoders[CPU], 3)
    async with replicated_engine(decoders) as engine:
        moving: list[asyncio.Future[None]] = []

        def move(count: int) -> None:
            if count == 3:
                moving.append(asyncio.ensure_future(engine.move("a", AMX)))
                release_soon(decoders[CPU])

        answer = asyncio.ensure_future(read(engine, asked(unit=CPU), move))
        while not engine.replicas.moves.counts:
            await asyncio.sleep(0.001)
        engine.refuse()
        await asyncio.sleep(0.01)
        decoders[AMX].gate.set()
        tokens, usage = await answer
        assert tokens == expected()
        assert [each.unit for each in usage.placements] == [CPU, AMX]


async def test_a_stream_that_moves_ends_with_one_reason() -> None:
    decoders = two()
    stopping(decoders[CPU], 2)
    async with replicated_engine(decoders) as engine:
        reasons: list[FinishReason | None] = []
        count = 0
        async for delta in engine.generate(asked(unit=CPU)):
            reasons.append(delta.finish_reason)
            count += len(delta.tokens)
            if count == 2:
                moving = asyncio.ensure_future(engine.move("a", AMX))
                release_soon(decoders[CPU])
                await moving
        assert reasons.count(FinishReason.LENGTH) == 1
        assert set(reasons) == {None, FinishReason.LENGTH}
