"""Whatever arrives, is cancelled, preempted and guessed: each sequence's answer is the one that it gets alone."""

import zlib

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from support.examples import examples
from triune.core.clock import VirtualClock
from triune.core.decoder import DecoderStep, LogitsOnHost
from triune.engine.choosing import choose
from triune.engine.kv.hashes import root_hash
from triune.engine.kv.host import HostTier
from triune.engine.kv.pool import KVBlockPool
from triune.engine.kv.table import BlockTable
from triune.engine.plan import Plan
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.sampling.sampler import SamplingState
from triune.engine.scheduler import Scheduler, SchedulerLimits
from triune.engine.sequence import Ending, FinishReason, Sequence

BLOCK_SIZE, NUM_BLOCKS, VOCABULARY, STOP = 3, 10, 5, 4
LIMITS = SchedulerLimits(step_tokens=7, sequences=4, context_tokens=24, ageing_seconds=1.0)


def next_token(context: list[int]) -> int:
    """A model without weights: the next token is a checksum of the whole context."""
    return zlib.crc32(bytes(context)) % VOCABULARY


def answer_alone(prompt: list[int], max_tokens: int) -> list[int]:
    tokens = list(prompt)
    while len(tokens) - len(prompt) < max_tokens:
        tokens.append(next_token(tokens))
        if tokens[-1] == STOP:
            break
    return tokens[len(prompt) :]


class Decoder(LogitsOnHost):
    """Keeps tokens in blocks, and reads each context out of them, as attention does."""

    block_size, block_bytes, cache_form = BLOCK_SIZE, 8 * BLOCK_SIZE, "tokens"

    def __init__(self) -> None:
        self.memory = np.full((NUM_BLOCKS, BLOCK_SIZE), -1)

    def read_blocks(self, indices: list[int]) -> list[np.ndarray]:
        return [self.memory[list(indices)]]

    def write_blocks(self, indices: list[int], blocks: list[np.ndarray]) -> None:
        self.memory[list(indices)] = blocks[0]

    def run(self, step: DecoderStep) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        step.require_fitting(NUM_BLOCKS, BLOCK_SIZE)
        logits: list[np.ndarray[tuple[int], np.dtype[np.float32]]] = []
        for index, past in enumerate(step.past_lengths):
            begin, end = step.subsequence_begins[index : index + 2]
            blocks = step.block_indices[slice(*step.block_indices_begins[index : index + 2])]
            assert step.position_ids[begin:end].tolist() == list(range(past, past + end - begin))
            for at, token in zip(step.position_ids[begin:end], step.input_ids[begin:end], strict=True):
                self.memory[blocks[at // BLOCK_SIZE], at % BLOCK_SIZE] = token
            context = self.memory[blocks].reshape(-1)
            for row in range(begin, end):
                if row in step.logits_indices:
                    known = context[: past + row - begin + 1].tolist()
                    logits.append(np.eye(VOCABULARY, dtype=np.float32)[next_token(known)])
        assert len(logits) == len(step.logits_indices)
        return np.stack(logits) if logits else np.zeros((0, VOCABULARY), np.float32)


class Engine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.pool = KVBlockPool(NUM_BLOCKS)
        self.decoder = Decoder()
        self.scheduler = Scheduler(self.pool, BLOCK_SIZE, self.clock, LIMITS, host=self.host())
        self.going: list[Sequence] = []

    def host(self) -> HostTier | None:
        """What keeps the blocks of preempted sequences."""
        return None

    @rule(
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=14),
        max_tokens=st.integers(1, 10),
        priority=st.integers(0, 2),
    )
    def arrive(self, prompt: list[int], max_tokens: int, priority: int) -> None:
        sequence = Sequence(
            prompt,
            BlockTable(self.pool, BLOCK_SIZE, root_hash()),
            SamplingState(SamplingParameters(temperature=0), prompt),
            Ending(max_tokens, frozenset({STOP})),
            priority,
            arrived_ns=self.clock.now_ns(),
        )
        self.scheduler.add(sequence)
        self.going.append(sequence)

    @rule(which=st.integers(0, 20))
    def cancel(self, which: int) -> None:
        if self.going:
            sequence = self.going.pop(which % len(self.going))
            self.scheduler.cancel(sequence)
            assert sequence.finish_reason is FinishReason.CANCELLED
            assert not sequence.table.blocks

    @rule(cancelled=st.one_of(st.none(), st.integers(0, 20)), guesses=st.lists(st.integers(0, 6), max_size=4))
    def step(self, cancelled: int | None, guesses: list[int]) -> None:
        """A step, during which a client may leave, and in which some of the next tokens are guessed rightly."""
        self.clock.advance(300_000_000)
        plan = self.scheduler.schedule()
        assert plan.num_tokens <= LIMITS.step_tokens
        assert self.scheduler.num_running <= LIMITS.sequences
        if not plan.pieces:
            assert not self.going, "something is computed as long as anyone waits"
            return
        num_tokens = plan.num_tokens
        plan = self.guess(plan, guesses)
        assert num_tokens <= plan.num_tokens <= LIMITS.step_tokens
        samples = choose(plan, self.decoder.run(plan.step()))
        for piece, chosen in zip(plan.choosing, samples, strict=True):
            assert 1 <= len(chosen) <= 1 + len(piece.drafts)
        if cancelled is not None:
            self.cancel(cancelled)
        for sequence in self.scheduler.update(plan, samples):
            self.going.remove(sequence)
            alone = answer_alone(list(sequence.prompt), sequence.ending.max_tokens)
            assert sequence.tokens[len(sequence.prompt) :] == alone
            is_stopped = alone[-1] == STOP
            assert sequence.finish_reason is (FinishReason.STOP if is_stopped else FinishReason.LENGTH)

    def guess(self, plan: Plan, guesses: list[int]) -> Plan:
        """Guess the next tokens of all sequences: those of numbers below 5 rightly, the others not."""
        drafts = {}
        for piece in plan.choosing:
            tokens = list(piece.sequence.tokens)
            for each in guesses:
                right = next_token(tokens)
                tokens.append(right if each < 5 else (right + 1) % VOCABULARY)
            drafts[piece] = tokens[len(piece.sequence.tokens) :]
        return self.scheduler.extend(plan, drafts)

    def teardown(self) -> None:
        """All sequences come to their end in a bounded number of steps."""
        num_steps = 0
        while self.going:
            self.step(None, [])
            num_steps += 1
            assert num_steps < 3000, "a sequence is never served"
        assert self.pool.num_used == 0
        super().teardown()

    @invariant()
    def laws_hold(self) -> None:
        self.scheduler.check()


Engine.TestCase.settings = examples(60, stateful_step_count=40)
TestEngine = Engine.TestCase


class MovingOut(Engine):
    """Blocks of preempted sequences are kept, as far as there is room for four of them."""

    def host(self) -> HostTier:
        return HostTier(self.decoder, 4 * self.decoder.block_bytes, self.clock, lambda: None)  # type: ignore[arg-type]


TestMovingOut = MovingOut.TestCase
TestMovingOut.settings = TestEngine.settings
