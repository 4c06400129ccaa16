"""Whatever becomes of units and clients, each client reads what one unit alone would have told it: no token is lost,
and none comes twice.
"""

import asyncio
import threading
from contextlib import AsyncExitStack, aclosing
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from support.copying import SCRIPT, CopyingDecoder
from support.examples import examples
from support.scripted import replicated_engine
from triune.core.errors import InternalError, TriuneError
from triune.core.power import Power
from triune.core.units import Unit
from triune.engine.generation import Generation
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.sequence import FinishReason

UNITS = (Unit.CPU, Unit.AMX, Unit.GPU)
LENGTH = 12
CHOICES = st.integers(0, 7)


class SteppedDecoder(CopyingDecoder):
    """Computes a step whenever it is allowed one more.

    Attributes:
        fails: whether the next step fails.
    """

    def __init__(self, block_size: int) -> None:
        super().__init__(num_blocks=60, block_size=block_size)
        self.steps_allowed = threading.Semaphore(0)
        self.is_free = False
        self.fails = False

    def run(self, step: Any) -> Any:
        if not self.is_free:
            assert self.steps_allowed.acquire(timeout=20)
        if self.fails:
            self.fails = False
            raise InternalError("the unit fails")
        return super().run(step)

    def free(self) -> None:
        """Compute all further steps at once."""
        self.is_free = True
        self.steps_allowed.release()


class Client:
    """Reads the answer to a prompt of so many tokens."""

    def __init__(self, name: str, num_prompt: int, unit: Unit | None) -> None:
        self.request = Generation(
            "x" * num_prompt, SamplingParameters(temperature=0), LENGTH, is_end_ignored=True, id=name, unit=unit
        )
        self.expected = [SCRIPT[at % len(SCRIPT)] for at in range(num_prompt, num_prompt + LENGTH)]
        self.tokens: list[int] = []
        self.reasons: list[FinishReason] = []
        self.error: TriuneError | None = None
        self.task: asyncio.Task[None] | None = None

    async def read(self, engine: Any) -> None:
        try:
            async with aclosing(engine.generate(self.request)) as deltas:
                async for delta in deltas:
                    self.tokens += delta.tokens
                    if delta.finish_reason is not None:
                        self.reasons.append(delta.finish_reason)
        except TriuneError as error:
            self.error = error


def chosen(those: list[Any], choice: int) -> Any:
    """Return one of them, or None where there is none.

    Who computes at a moment depends on threads, and what hypothesis draws must not: so it draws a number.
    """
    return those[choice % len(those)] if those else None


class Units(RuleBasedStateMachine):
    """Clients of a model on three units."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.stack = AsyncExitStack()
        self.decoders = {unit: SteppedDecoder(size) for unit, size in zip(UNITS, (4, 8, 4), strict=True)}
        self.power = Power()
        self.clients: list[Client] = []
        self.num_asked = 0
        self.num_failures = 0
        self.moving: list[asyncio.Future[None]] = []

    def running(self) -> list[Client]:
        return [each for each in self.clients if not each.task.done()]

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    @initialize()
    def begin(self) -> None:
        async def enter() -> Any:
            return await self.stack.enter_async_context(
                replicated_engine(self.decoders, power=self.power, step_tokens=16, sequences=3)
            )

        self.engine = self.run(enter())

    @rule(num_prompt=st.integers(1, 30), unit=st.none() | st.sampled_from(UNITS))
    def ask(self, num_prompt: int, unit: Unit | None) -> None:
        self.num_asked += 1
        client = Client(f"client {self.num_asked}", num_prompt, unit)
        self.clients.append(client)
        client.task = self.loop.create_task(client.read(self.engine))
        self.run(asyncio.sleep(0))

    @rule(unit=st.sampled_from(UNITS), count=st.integers(1, 8))
    def compute(self, unit: Unit, count: int) -> None:
        for _ in range(count):
            self.decoders[unit].steps_allowed.release()
            self.run(asyncio.sleep(0.001))

    @rule(choice=CHOICES, unit=st.sampled_from(UNITS))
    def move(self, choice: int, unit: Unit) -> None:
        client = chosen(self.running(), choice)
        if client is None:
            return

        async def move() -> None:
            try:
                await self.engine.move(client.request.id, unit)
            except TriuneError:
                assert True, "it has ended, or moves already"

        self.moving.append(self.loop.create_task(move()))
        self.run(asyncio.sleep(0))

    @rule(choice=CHOICES)
    def leave(self, choice: int) -> None:
        client = chosen(self.running(), choice)
        if client is None:
            return
        client.task.cancel()
        self.run(asyncio.sleep(0))
        self.clients.remove(client)

    @rule(units=st.sets(st.sampled_from(UNITS)))
    def heat(self, units: set[Unit]) -> None:
        self.power.overrule("", dict.fromkeys(units, "it is hot"))

    @rule(unit=st.sampled_from(UNITS), is_drained=st.booleans())
    def drain(self, unit: Unit, is_drained: bool) -> None:
        async def drain() -> None:
            self.engine.replicas.drain(unit, "it is drained" if is_drained else "")

        self.run(drain())

    @rule(choice=CHOICES, count=st.integers(0, 4))
    def fail(self, choice: int, count: int) -> None:
        """A unit fails at a step after some others."""
        unit = chosen([each.placement.unit for each in self.engine.replicas.all if each.jobs], choice)
        if unit is None or self.num_failures == 2:
            return
        self.compute(unit, count)
        self.decoders[unit].fails = True
        self.num_failures += 1
        self.compute(unit, 2)

    @invariant()
    def each_reads_its_own(self) -> None:
        for each in self.clients:
            assert each.tokens == each.expected[: len(each.tokens)]
            assert len(each.reasons) <= 1

    def teardown(self) -> None:
        async def end() -> None:
            for each in self.decoders.values():
                each.free()
            await asyncio.wait_for(asyncio.gather(*(each.task for each in self.clients)), 20)
            await asyncio.gather(*self.moving)
            await self.stack.aclose()

        self.run(end())
        self.loop.close()
        for each in self.clients:
            if each.error is not None:
                # It failed on two units, or on the only one that could take it.
                assert self.num_failures, each.error
                assert "the unit fails" in str(each.error)
                continue
            assert each.tokens == each.expected
            assert each.reasons == [FinishReason.LENGTH]
        assert sum(each.error is not None for each in self.clients) <= 3 * self.num_failures


TestUnits = Units.TestCase
TestUnits.settings = examples(100, stateful_step_count=25, deadline=None)
