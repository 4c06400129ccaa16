"""Batching, prefix cache, files, guesses of a draft model, constraints, LoRA adapters, preemption, and moves between
two engines, all at once: each answer is the one that it is alone, and the laws hold.
"""

import tempfile
import zlib
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from numpy.typing import NDArray

from support.examples import examples
from support.scripted import EOS, VOCAB, ScriptedDecoder, byte_tokenizer
from triune.core.clock import VirtualClock
from triune.core.datatypes import Array
from triune.core.decoder import DecoderStep
from triune.engine.core import EngineCore
from triune.engine.kv.second_tier import SecondTier
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.scheduler import SchedulerLimits
from triune.engine.sequence import Ending, FinishReason, Sequence
from triune.engine.speculation.draft import DraftModel
from triune.engine.structured.compiler import ConstraintCompiler, Grammar
from triune.engine.structured.constraint import Constraint

CONTEXT = 36
ADAPTERS = {"poet": b"p" * 16, "lawyer": b"l" * 16}
NAMES = [None, *ADAPTERS]
PROMPTS = [b"abbabaabbaababbabaab", b"abbabaabbabbbbaaaabb", b"bbaabbabaababaabbaab"]
REGEXES = ["[ab]+c", "(abc|bca)*d", "[a-d]{3,9}"]
LETTERS = np.frombuffer(b"abcd", np.uint8)


class Remembering(ScriptedDecoder):
    """Its cache holds tokens, each with the adapter that computed it. Its logits follow from what it reads there.

    `errs` makes it a small model: in some contexts it has other logits, and it knows no adapters.
    """

    def __init__(self, num_blocks: int, block_size: int, *, errs: bool = False) -> None:
        super().__init__(b"-", num_blocks=num_blocks, block_size=block_size)
        self.cache_form = f"{block_size}"
        self._errs = errs
        self._cache = np.full((num_blocks, block_size, 2), -1.0, np.float32)

    def run(self, step: DecoderStep) -> NDArray[np.float32]:
        step.require_fitting(self.num_blocks, self.block_size)
        adapters = np.zeros(len(step.input_ids), int) if step.adapters is None else step.adapters
        rows: dict[int, NDArray[np.float32]] = {}
        for which, past in enumerate(step.past_lengths):
            begin, end = step.subsequence_begins[which : which + 2]
            blocks = step.block_indices[slice(*step.block_indices_begins[which : which + 2])]
            places = np.arange(past, past + end - begin)
            assert step.position_ids[begin:end].tolist() == places.tolist()
            written = np.stack([step.input_ids[begin:end], adapters[begin:end]], axis=1)
            self._cache[blocks[places // self.block_size], places % self.block_size] = written
            context = self._cache[blocks].reshape(-1, 2)[: past + end - begin]
            assert (context[:, 0] >= 0).all(), "each token that is read was written"
            assert len(set(context[:, 1].tolist())) == 1, "by the same adapter"
            for row in range(begin, end):
                rows[row] = self._logits(context[: past + row - begin + 1].astype(np.uint16))
        logits = [rows[int(row)] for row in step.logits_indices]
        return np.stack(logits) if logits else np.zeros((0, VOCAB), np.float32)

    def _logits(self, context: NDArray[np.uint16]) -> NDArray[np.float32]:
        key = zlib.crc32(context.tobytes())
        if self._errs and key % 3 == 0:
            key += 1
        logits = np.full(VOCAB, -20, np.float32)
        logits[LETTERS] = np.random.default_rng(key).normal(size=len(LETTERS)) * 2
        return logits

    def read_blocks(self, indices: Seq[int]) -> Seq[Array]:
        return [self._cache[list(indices)]]

    def write_blocks(self, indices: Seq[int], blocks: Seq[Array]) -> None:
        self._cache[list(indices)] = blocks[0]

    def read_tokens(self, blocks: Seq[int], num_tokens: int) -> Seq[NDArray[np.float32]]:
        return [self._cache[list(blocks)].reshape(-1, 1, 2)[:num_tokens]]

    def write_tokens(self, blocks: Seq[int], tokens: Seq[NDArray[np.float32]]) -> None:
        self._cache[list(blocks)] = tokens[0].reshape(len(blocks), self.block_size, 2)


@dataclass(eq=False)
class Answer:
    """A sequence, the engine that has it, and its answer if nothing else is computed."""

    sequence: Sequence
    engine: EngineCore
    alone: list[int]


_COMPILER = ConstraintCompiler(byte_tokenizer(), VOCAB)


class Engines(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = VirtualClock()
        small, large = Remembering(12, 3), Remembering(9, 5)
        tier = SecondTier(small, Path(self.folder.name) / "key", 30 * (16 + 3 * 8))
        self.drafts = [DraftModel(Remembering(num, size, errs=True), CONTEXT, 7) for num, size in ((10, 4), (6, 4))]
        self.engines = [
            self.engine(small, self.drafts[0], tier, step_tokens=11, sequences=4),
            self.engine(large, self.drafts[1], None, step_tokens=40, sequences=3),
        ]
        self.going: list[Answer] = []

    def engine(
        self, decoder: Remembering, draft: DraftModel | None, tier: SecondTier | None, **limits: int
    ) -> EngineCore:
        bounds = SchedulerLimits(context_tokens=CONTEXT, ageing_seconds=1.0, **limits)
        return EngineCore(decoder, VOCAB, self.clock, bounds, draft, tier, ADAPTERS, preempted_bytes=1 << 20)

    @rule(
        which=st.integers(0, 1),
        prompt=st.builds(lambda text, size: list(text[:size]), st.sampled_from(PROMPTS), st.integers(1, 20)),
        max_tokens=st.integers(1, 15),
        adapter=st.sampled_from([*NAMES, None]),
        regex=st.none() | st.sampled_from(REGEXES),
        sampling=st.builds(
            SamplingParameters,
            temperature=st.sampled_from([0.0, 0.0, 1.0]),
            seed=st.integers(0, 5),
            frequency_penalty=st.sampled_from([0.0, 0.5]),
        ),
    )
    def arrive(
        self,
        which: int,
        prompt: list[int],
        max_tokens: int,
        adapter: str | None,
        regex: str | None,
        sampling: SamplingParameters,
    ) -> None:
        grammar: Grammar | None = _COMPILER.compile(Constraint("regex", regex)) if regex else None

        def add(engine: EngineCore) -> Sequence:
            matcher = grammar.matcher() if grammar is not None else None
            return engine.add(prompt, sampling, Ending(max_tokens, frozenset({EOS})), adapter=adapter, matcher=matcher)

        alone = self.engine(Remembering(20, 2), None, None)
        expected = add(alone)
        while not alone.is_idle:
            alone.step()
        engine = self.engines[which]
        self.going.append(Answer(add(engine), engine, expected.tokens))

    @rule(which=st.integers(0, 20))
    def cancel(self, which: int) -> None:
        if self.going:
            answer = self.going.pop(which % len(self.going))
            answer.engine.cancel(answer.sequence)
            assert answer.sequence.finish_reason is FinishReason.CANCELLED

    @rule(which=st.integers(0, 1), breaks=st.booleans())
    def reset(self, which: int, breaks: bool) -> None:
        """Its sequences are gone. What is in files, or comes from there, is still right for later ones."""
        engine = self.engines[which]
        if breaks:
            engine.pool.allocate(1)
            self.drafts[which].pool.allocate(1)
        engine.reset()
        self.going = [answer for answer in self.going if answer.engine is not engine]
        assert engine.is_idle

    @rule(which=st.integers(0, 20), num_steps=st.integers(0, 3), as_blocks=st.booleans(), is_trusted=st.booleans())
    def move(self, which: int, num_steps: int, as_blocks: bool, is_trusted: bool) -> None:
        """After some steps, to the other engine, or, with its blocks as they are, back into the same one."""
        for number in range(2):
            self.step(number, num_steps)
        if not self.going:
            return
        answer = self.going[which % len(self.going)]
        target = answer.engine if as_blocks else next(each for each in self.engines if each is not answer.engine)
        matcher = answer.sequence.matcher
        state = answer.engine.export(answer.sequence, form=target.cache_form)
        assert answer.sequence.finish_reason is FinishReason.MOVED
        salt = b"" if is_trusted else bytes([which])
        answer.sequence = target.resume(state, salt=salt, matcher=matcher)
        answer.engine = target

    @rule(which=st.integers(0, 1), count=st.integers(1, 6))
    def step(self, which: int, count: int) -> None:
        for _ in range(count):
            self.clock.advance(300_000_000)
            self.engines[which].step()
            self.engines[which].check()
        for answer in list(self.going):
            sequence = answer.sequence
            if sequence.finish_reason is not None:
                assert sequence.error is None, sequence.error
                assert sequence.tokens == answer.alone
                self.going.remove(answer)

    def teardown(self) -> None:
        num_steps = 0
        while self.going:
            for which in range(2):
                self.step(which, 1)
            num_steps += 1
            assert num_steps < 3000, "a sequence is never served"
        self.laws_hold()
        for engine, draft in zip(self.engines, self.drafts, strict=True):
            assert engine.is_idle
            assert engine.pool.num_used == draft.pool.num_used == 0
            engine.close()
        self.folder.cleanup()
        super().teardown()

    @invariant()
    def laws_hold(self) -> None:
        for engine, draft in zip(self.engines, self.drafts, strict=True):
            engine.check()
            assert not draft.is_broken
            for pool in (engine.pool, draft.pool):
                assert pool.num_free + pool.num_used + pool.num_cached == pool.num_blocks


Engines.TestCase.settings = examples(50, stateful_step_count=40)
TestEngines = Engines.TestCase
