"""Decoders of several runtimes as the units of one model: each answer moves through all of them."""

import asyncio
import threading

import numpy as np
import pytest

from contract.decoders.cases import CONFIGS
from contract.decoders.conftest import Bench
from support.scripted import byte_tokenizer
from triune.core.clock import MonotonicClock
from triune.core.units import Unit
from triune.engine.core import EngineCore
from triune.engine.engine import Engine
from triune.engine.generation import Generation, Placement
from triune.engine.replicas.rates import Rates
from triune.engine.replicas.replica import Replica
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.sampling.sampler import Sample
from triune.engine.scheduler import SchedulerLimits
from triune.engine.sequence import Sequence
from triune.engine.text.side import TextSide
from triune.runtimes import missing

CASE = "llama 3"
NUM_TOKENS = 24
RUNTIMES = {Unit.ANE: "reference", Unit.CPU: "openvino", Unit.GPU: "mlx"}
"""The units are names here: the reference has none."""


class Reading:
    """Lets the decoders wait for the clients: on a busy machine a client would otherwise read an answer whole, with
    nothing left of it to move.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_unread = 0

    def add(self, num_tokens: int) -> None:
        """Count new tokens, or with a negative number tokens that a client has read."""
        with self._changed:
            self._num_unread += num_tokens
            self._changed.notify_all()

    def wait(self) -> None:
        """Wait until all tokens are read. A client that waits for a move reads nothing meanwhile, so this ends after a
        while even so.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._num_unread <= 0, timeout=0.3)


class Paced(EngineCore):
    """An engine core whose steps begin when the clients have read the tokens of the steps before."""

    reading: Reading

    def step(self) -> list[tuple[Sequence, Sample | None]]:
        self.reading.wait()
        results = super().step()
        self.reading.add(sum(sample is not None for _, sample in results))
        return results


def prompts() -> list[list[int]]:
    rng = np.random.default_rng(8)
    return [rng.integers(0, 48, count).tolist() for count in (40, 17, 3)]


async def test_answers_that_move_are_those_that_stay() -> None:
    if reason := missing().get("openvino") or missing().get("mlx"):
        pytest.skip(reason)
    clock, vocab_size = MonotonicClock(), CONFIGS[CASE].vocab_size
    benches = {unit: Bench(name) for unit, name in RUNTIMES.items()}
    reading = Reading()
    replicas = [
        Replica(
            Paced(bench.load(CASE, num_blocks=24), vocab_size, clock, SchedulerLimits(step_tokens=24)),
            Placement(unit, bench.name, "fp32", "the test wants it"),
            Rates(24),
        )
        for unit, bench in benches.items()
    ]
    for each in replicas:
        assert isinstance(each.core, Paced)
        each.core.reading = reading
    text = TextSide.of(byte_tokenizer(), None, vocab_size)
    engine = Engine(
        replicas, text, clock, name="moving", close_decoder=lambda: [b.close() for b in benches.values()][-1]
    )

    async def answer(place: int, units: list[Unit]) -> tuple[list[int], set[Unit]]:
        greedy = SamplingParameters(temperature=0)
        request = Generation(
            prompts()[place], greedy, NUM_TOKENS, is_end_ignored=True, id=f"{place} {units}", unit=units[0]
        )
        tokens: list[int] = []
        left, usage = units[1:], None
        async for delta in engine.generate(request):
            tokens += delta.tokens
            reading.add(-len(delta.tokens))
            usage = delta.usage
            if left and usage is None:
                await engine.move(request.id, left.pop(0))
        assert usage is not None
        assert [each.unit for each in usage.placements][-1] is units[-1]
        return tokens, set(usage.units)

    units = list(RUNTIMES)
    try:
        for place in range(len(prompts())):
            alone = [await answer(place, [unit]) for unit in units]
            assert alone[0][0] == alone[1][0] == alone[2][0]
            ways = [[*units[first:], *units[:first]] for first in range(3)]
            for way, (tokens, seen) in zip(
                ways, await asyncio.gather(*(answer(place, way) for way in ways)), strict=True
            ):
                assert tokens == alone[0][0], way
                assert len(seen) > 1
    finally:
        await engine.close()
    for each in replicas:
        each.core.check()
        assert each.core.pool.num_used == 0
