"""Steps that begin before the last one's tokens are read: each answer is the one that it is alone, and nothing of a
token that was computed for nobody is left, in the cache, in files, or in what the engine counts.
"""

import tempfile
from collections.abc import Sequence as Seq
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from numpy.typing import NDArray

from property.engine.test_scheduler import BLOCK_SIZE, NUM_BLOCKS, STOP, VOCABULARY, Decoder, answer_alone
from support.examples import examples
from triune.core.clock import VirtualClock
from triune.core.datatypes import Array
from triune.core.decoder import DecoderStep, best_tokens
from triune.core.energy import Account, Work
from triune.core.pending_tokens import PendingTokens
from triune.core.units import Unit
from triune.engine.core import EngineCore
from triune.engine.kv.second_tier import SecondTier
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.scheduler import SchedulerLimits
from triune.engine.sequence import Ending, FinishReason, Sequence

LIMITS = SchedulerLimits(step_tokens=7, sequences=4, context_tokens=26, ageing_seconds=1.0)
STEP_NS = 10_000_000


class Late:
    """The tokens of a step that is computed when they are read, or when something after the step is."""

    def __init__(self, decoder: "LateDecoder", step: DecoderStep, before: "Late | None") -> None:
        self._decoder, self._step, self._before = decoder, step, before
        self._tokens: NDArray[np.int64] | None = None

    def compute(self) -> NDArray[np.int64]:
        if self._tokens is None:
            step = self._step if self._before is None else self._step.with_tokens(self._before.compute())
            self._tokens = best_tokens(Decoder.run(self._decoder, step))
        return self._tokens

    def read(self) -> NDArray[np.int64]:
        if self._tokens is None:
            self._decoder.compute_until(self)
        return self.compute()


class LateDecoder(Decoder):
    """Computes steps as late as it may, in their order. Its blocks hold tokens."""

    can_run_ahead = True
    num_blocks = NUM_BLOCKS
    block_size = BLOCK_SIZE
    cache_form = "tokens"

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[Late] = []
        self.most_begun = 0

    def compute_until(self, last: Late | None = None) -> None:
        while self.begun:
            first = self.begun.pop(0)
            first.compute()
            if first is last:
                return

    def begin(self, step: DecoderStep, before: PendingTokens | None = None) -> Late:
        assert before is None or isinstance(before, Late)
        self.begun.append(Late(self, step, before))
        self.most_begun = max(self.most_begun, len(self.begun))
        return self.begun[-1]

    def run(self, step: DecoderStep) -> Any:
        self.compute_until()
        return super().run(step)

    def read_blocks(self, indices: Seq[int]) -> list[Array]:
        self.compute_until()
        return [self.memory[list(indices)]]

    def write_blocks(self, indices: Seq[int], blocks: Seq[NDArray[Any]]) -> None:
        self.compute_until()
        self.memory[list(indices)] = blocks[0]

    def read_tokens(self, blocks: Seq[int], num_tokens: int) -> list[NDArray[np.float32]]:
        self.compute_until()
        return [self.memory[list(blocks)].reshape(-1, 1, 1)[:num_tokens].astype(np.float32)]

    def write_tokens(self, blocks: Seq[int], tokens: Seq[NDArray[np.float32]]) -> None:
        raise NotImplementedError


class Works:
    """Keeps works, and charges nothing."""

    def __init__(self, works: list[Work]) -> None:
        self.record = works.append

    def why_unavailable(self, unit: Unit) -> str:
        return f"{unit} has no meter"

    async def settle(self) -> bool:
        return True


class Engine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = VirtualClock()
        self.decoder: Any = LateDecoder()
        self.works: list[Work] = []
        tier = SecondTier(self.decoder, Path(self.folder.name) / "key", 20 * (16 + BLOCK_SIZE * 8))
        account = Account("m", 1, Unit.CPU, Works(self.works))
        self.engine = EngineCore(self.decoder, VOCABULARY, self.clock, LIMITS, second_tier=tier, account=account)
        self.going: list[Sequence] = []
        self.given: dict[Sequence, list[int]] = {}

    @rule(
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=14),
        max_tokens=st.integers(1, 10),
        priority=st.integers(0, 2),
        logprobs=st.sampled_from([None, None, None, 1]),
    )
    def arrive(self, prompt: list[int], max_tokens: int, priority: int, logprobs: int | None) -> None:
        """Some want log probabilities, for which the host needs logits."""
        parameters = SamplingParameters(temperature=0, num_logprobs=logprobs)
        ending = Ending(max_tokens, frozenset({STOP}))
        sequence = self.engine.add(prompt, parameters, ending, priority=priority)
        self.going.append(sequence)
        self.given[sequence] = []

    @rule(which=st.integers(0, 20))
    def cancel(self, which: int) -> None:
        if self.going:
            sequence = self.going.pop(which % len(self.going))
            self.engine.cancel(sequence)
            assert sequence.finish_reason is FinishReason.CANCELLED
            assert not sequence.table.blocks
            assert self.given.pop(sequence) == sequence.tokens[len(sequence.prompt) :]

    @rule(which=st.integers(0, 20))
    def move(self, which: int) -> None:
        """Out of the engine and in again, without its keys and values."""
        started = [each for each in self.going if each.started_ns is not None]
        if started:
            sequence = started[which % len(started)]
            state = self.engine.export(sequence, form="none", max_tokens=None)
            again = self.engine.add(
                sequence.tokens,
                state.parameters,
                Ending(state.ending.max_tokens - len(state.answer), frozenset({STOP})),
            )
            self.going[self.going.index(sequence)] = again
            self.given[again] = []
            assert self.given.pop(sequence) == list(state.answer)

    @rule(count=st.integers(1, 4))
    def step(self, count: int) -> None:
        for _ in range(count):
            self.clock.advance(STEP_NS)
            for sequence, sample in self.engine.step():
                assert sample is not None
                self.given[sequence].append(sample.token)
            self.engine.check()
        for sequence in list(self.going):
            if sequence.finish_reason is None:
                continue
            self.going.remove(sequence)
            alone = answer_alone(list(sequence.prompt), sequence.ending.max_tokens)
            assert sequence.tokens[len(sequence.prompt) :] == alone == self.given.pop(sequence)
            reason = FinishReason.STOP if alone[-1] == STOP else FinishReason.LENGTH
            assert sequence.finish_reason is reason

    def teardown(self) -> None:
        num_steps = 0
        while self.going:
            self.step(1)
            num_steps += 1
            assert num_steps < 300, "a sequence is never served"
        assert self.engine.is_idle
        assert self.engine.pool.num_used == 0
        assert not self.given
        for work, following in pairwise(self.works):
            assert work.started_ns <= work.ended_ns <= following.started_ns, "no time is charged twice"
        assert all(work.ended_ns for work in self.works)
        self.engine.close()
        self.folder.cleanup()
        super().teardown()

    @invariant()
    def laws_hold(self) -> None:
        self.engine.check()
        assert self.decoder.most_begun <= 3, "two, and one whose sequences were cancelled"


Engine.TestCase.settings = examples(60, stateful_step_count=40)
TestEngine = Engine.TestCase


def test_a_step_begins_before_the_last_ones_tokens_are_read() -> None:
    decoder: Any = LateDecoder()
    engine = EngineCore(decoder, VOCABULARY, VirtualClock(), LIMITS)
    engine.add([0, 1], SamplingParameters(temperature=0), Ending(4))
    engine.step()
    assert decoder.most_begun == 2
