"""Guesses change no answer: neither its tokens, nor their probabilities, whatever is asked and whatever is guessed."""

import math
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Seq
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from property.engine.test_structured import EOS, VOCAB, RandomDecoder, constraints, parameters, run
from support.examples import examples
from support.scripted import ScriptedDecoder, byte_tokenizer
from triune.core.clock import VirtualClock
from triune.core.decoder import DecoderStep
from triune.engine.core import EngineCore
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.sampling.sampler import Sample
from triune.engine.scheduler import SchedulerLimits
from triune.engine.sequence import Ending, FinishReason, Sequence
from triune.engine.speculation.draft import DraftModel
from triune.engine.speculation.proposer import Proposer
from triune.engine.structured.compiler import ConstraintCompiler
from triune.engine.structured.constraint import Constraint


class Knowing:
    """A proposer that knows the answers, and errs at some places."""

    def __init__(self, answers: Seq[Seq[int]], errors: frozenset[int]) -> None:
        self._answers = answers
        self._errors = errors
        self.forgotten: list[Sequence] = []

    def propose(self, wanted: Mapping[Sequence, int]) -> Mapping[Sequence, Seq[int]]:
        return {sequence: self._drafts(sequence, count) for sequence, count in wanted.items()}

    def check(self) -> None:
        pass

    def _drafts(self, sequence: Sequence, count: int) -> Seq[int]:
        begin = len(sequence.tokens)
        (answer,) = (each for each in self._answers if each[: len(sequence.prompt)] == list(sequence.prompt))
        return [
            (token + 1) % VOCAB if begin + place in self._errors else token
            for place, token in enumerate(answer[begin : begin + count])
        ]

    def reset(self) -> None:
        pass

    def forget(self, sequence: Sequence) -> None:
        self.forgotten.append(sequence)


Asked = tuple[SamplingParameters, Constraint | None, int, frozenset[int]]


def answers(
    compiler: ConstraintCompiler, asked: list[Asked], seed: int, num_blocks: int, proposer: Proposer | None
) -> tuple[list[Sequence], dict[Sequence, list[Sample]], int]:
    """All sequences with what they were given, and the number of steps."""
    decoder = RandomDecoder(seed)
    decoder.num_blocks = num_blocks
    engine = EngineCore(decoder, VOCAB, VirtualClock(), SchedulerLimits(step_tokens=24), proposer)
    sequences = [
        engine.add(
            # Each prompt begins with a number of its own, then with what it shares with others.
            [index, *range(65, 85)],
            replace(sampling, num_logprobs=2),
            Ending(40, stops | {EOS}, min_tokens),
            matcher=None if constraint is None else compiler.compile(constraint).matcher(),
        )
        for index, (sampling, constraint, min_tokens, stops) in enumerate(asked)
    ]
    given_to: dict[Sequence, list[Sample]] = {each: [] for each in sequences}
    num_steps = 0
    while not engine.is_idle:
        num_steps += 1
        for sequence, sample in engine.step():
            assert sample is not None
            given_to[sequence].append(sample)
        engine.check()
    return sequences, given_to, num_steps


@pytest.fixture(scope="module")
def compiler() -> Iterator[ConstraintCompiler]:
    compiler = ConstraintCompiler(byte_tokenizer(), VOCAB)
    yield compiler
    compiler.close()


@examples(60)
@given(
    asked=st.lists(
        st.tuples(
            parameters,
            st.one_of(st.none(), constraints),
            st.integers(0, 10),
            st.frozensets(st.integers(0, VOCAB - 1), max_size=20),
        ),
        min_size=1,
        max_size=4,
    ),
    errors=st.frozensets(st.integers(21, 61), max_size=12),
    seed=st.integers(0, 1000),
    num_blocks=st.integers(8, 40),
)
def test_guesses_change_no_answer(
    compiler: ConstraintCompiler, asked: list[Asked], errors: frozenset[int], seed: int, num_blocks: int
) -> None:
    plain, plain_samples, _ = answers(compiler, asked, seed, num_blocks, None)
    knowing = Knowing([each.tokens for each in plain], errors)
    guessed, samples, _ = answers(compiler, asked, seed, num_blocks, knowing)
    for one, other in zip(plain, guessed, strict=True):
        assert (one.tokens, one.finish_reason) == (other.tokens, other.finish_reason)
        assert [each.token for each in samples[other]] == other.tokens[len(other.prompt) :]
        assert plain_samples[one] == samples[other], "the probabilities are the same, too"
    assert set(guessed) <= set(knowing.forgotten)


def test_right_guesses_save_steps(compiler: ConstraintCompiler) -> None:
    asked: list[Asked] = [(SamplingParameters(temperature=0.7, seed=1), None, 40, frozenset())]
    plain, _, num_plain = answers(compiler, asked, 3, 40, None)
    _, _, num_right = answers(compiler, asked, 3, 40, Knowing([each.tokens for each in plain], frozenset()))
    assert num_plain >= 40
    assert num_right < num_plain / 3


@examples(60)
@given(
    asked=st.lists(
        st.tuples(
            parameters,
            st.one_of(st.none(), constraints),
            st.integers(0, 10),
            st.frozensets(st.integers(0, VOCAB - 1), max_size=20),
        ),
        min_size=1,
        max_size=4,
    ),
    seed=st.integers(0, 1000),
    num_blocks=st.integers(8, 40),
    draft_blocks=st.integers(1, 40),
    step_tokens=st.integers(1, 64),
)
def test_a_draft_model_that_is_the_model_is_always_right(
    compiler: ConstraintCompiler, asked: list[Asked], seed: int, num_blocks: int, draft_blocks: int, step_tokens: int
) -> None:
    """Whatever its cache has room for: sampled and constrained answers, too, since it draws the same numbers."""
    plain, plain_samples, num_plain = answers(compiler, asked, seed, num_blocks, None)
    decoder = RandomDecoder(seed)
    decoder.num_blocks, decoder.block_size = draft_blocks, 3
    draft = DraftModel(decoder, 100, step_tokens)
    guessed, samples, num_steps = answers(compiler, asked, seed, num_blocks, draft)
    for one, other in zip(plain, guessed, strict=True):
        assert (one.tokens, one.finish_reason) == (other.tokens, other.finish_reason)
        assert plain_samples[one] == samples[other]
    assert not draft.is_broken
    assert draft.pool.num_used == 0
    if draft_blocks == 40 and num_plain > 60:
        assert num_steps < num_plain


class Reciting(ScriptedDecoder):
    """Its logits follow from all tokens in its cache."""

    def __init__(self, errors: frozenset[int]) -> None:
        super().__init__(b"-", num_blocks=30, block_size=3)
        self._errors = errors
        self._memory = np.full((30, 3), -1)

    def run(self, step: DecoderStep) -> NDArray[np.float32]:
        logits = np.zeros((len(step.input_ids), VOCAB), np.float32)
        for which, past in enumerate(step.past_lengths):
            begin, end = step.subsequence_begins[which : which + 2]
            blocks = step.block_indices[slice(*step.block_indices_begins[which : which + 2])]
            for row in range(begin, end):
                at = past + row - begin
                self._memory[blocks[at // 3], at % 3] = step.input_ids[row]
                context = self._memory[blocks].reshape(-1)[: at + 1]
                assert (context >= 0).all()
                logits[row, (zlib.crc32(bytes(context.tolist())) + (int(at) in self._errors)) % 5] = 9
        return logits[step.logits_indices]


@examples(100)
@given(
    prompts=st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=20), min_size=1, max_size=3),
    errors=st.frozensets(st.integers(0, 50), max_size=1),
)
def test_after_a_wrong_guess_the_draft_model_reads_the_right_tokens(
    prompts: list[list[int]], errors: frozenset[int]
) -> None:
    draft = DraftModel(Reciting(errors), 100)
    engine = EngineCore(Reciting(frozenset()), VOCAB, VirtualClock(), proposer=draft)
    sequences = [engine.add(prompt, SamplingParameters(temperature=0), Ending(30)) for prompt in prompts]
    run(engine)
    assert not draft.is_broken
    # Guesses after a wrong one were never checked. So each place has one wrong guess at most, and only where it errs.
    num_wrong = engine.speculator.num_checked - engine.speculator.num_right
    assert num_wrong <= len(errors) * len(sequences)
    assert engine.speculator.num_right > 0


class Timed(ScriptedDecoder):
    """Recites; each step takes some milliseconds."""

    def __init__(self, clock: VirtualClock, milliseconds: float) -> None:
        super().__init__(b"recited")
        self._clock, self._ns = clock, int(milliseconds * 1e6)

    def run(self, step: DecoderStep) -> NDArray[np.float32]:
        self._clock.advance(self._ns)
        return super().run(step)


@pytest.mark.parametrize(("milliseconds", "most", "least"), [(1, 2.5, 0), (5, 8, 0), (9.5, 11, 9.5), (20, 11, 9.5)])
def test_guesses_are_made_if_they_save_time(milliseconds: float, most: float, least: float) -> None:
    """A step takes 10 ms, a guess less or more; all guesses are right. So many milliseconds a token takes."""
    clock = VirtualClock()
    engine = EngineCore(Timed(clock, 10), VOCAB, clock, proposer=DraftModel(Timed(clock, milliseconds), 1000))
    engine.add([1], SamplingParameters(temperature=0), Ending(200))
    run(engine)
    assert least * 200 * 1e6 <= clock.now_ns() <= most * 200 * 1e6


class Failing(ScriptedDecoder):
    def run(self, step: DecoderStep) -> NDArray[np.float32]:
        raise RuntimeError("no more power")


def test_a_draft_model_that_fails_costs_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    draft = DraftModel(Failing(b"-"), 100)
    engine = EngineCore(ScriptedDecoder(b"abc"), VOCAB, VirtualClock(), proposer=draft)
    sequence = engine.add([1], SamplingParameters(temperature=0), Ending(6))
    run(engine)
    assert sequence.tokens[1:] == list(b"bcabca")
    assert draft.is_broken
    assert [each.message for each in caplog.records] == [
        "the draft model failed; no tokens are guessed any more until the model is loaded again"
    ]


class TinyDecoder(ScriptedDecoder):
    """Three tokens, whose probabilities depend on the token before: `LAW`."""

    def __init__(self, *args: Any, law: NDArray[np.float64] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._law = LAW if law is None else law

    def run(self, step: DecoderStep) -> NDArray[np.float32]:
        logits = np.full((len(step.logits_indices), VOCAB), -np.inf, np.float32)
        logits[:, :3] = np.log(self._law)[step.input_ids[step.logits_indices]]
        return logits


LAW = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3]])


class Stubborn:
    """A proposer that always guesses the same."""

    def __init__(self, drafts: list[int]) -> None:
        self._drafts = drafts

    def propose(self, wanted: Mapping[Sequence, int]) -> Mapping[Sequence, Seq[int]]:
        return {sequence: self._drafts[:count] for sequence, count in wanted.items()}

    def check(self) -> None:
        pass

    def reset(self) -> None:
        pass

    def forget(self, sequence: Sequence) -> None:
        pass


def near(law: NDArray[np.float64]) -> Proposer:
    """A draft model whose probabilities are near those of the model, and not equal."""
    return DraftModel(TinyDecoder(b"-", num_blocks=4096, law=(law + 0.2) / 1.6), 100)


PROPOSERS = {
    **{str(drafts): Stubborn(drafts) for drafts in ([0, 0, 0], [2, 1, 2], [1, 2, 0])},
    "draft model": near(LAW),
}


@pytest.mark.parametrize("name", PROPOSERS)
def test_the_law_of_the_answers_is_the_models(name: str) -> None:
    number = 4000
    engine = EngineCore(TinyDecoder(b"-", num_blocks=4096), VOCAB, VirtualClock(), proposer=PROPOSERS[name])
    sequences = [engine.add([0], SamplingParameters(seed=seed), Ending(3)) for seed in range(number)]
    run(engine)
    assert engine.speculator.num_guessed > number
    assert engine.speculator.num_right > number / 20
    found = Counter(tuple(sequence.tokens[1:]) for sequence in sequences)
    wanted = {
        (a, b, c): float(LAW[0, a] * LAW[a, b] * LAW[b, c]) * number
        for a in range(3)
        for b in range(3)
        for c in range(3)
    }
    # Pearson's chi-square, with 26 degrees of freedom.
    statistic = sum((found.get(key, 0) - expected) ** 2 / expected for key, expected in wanted.items())
    assert statistic < 26 + 5 * math.sqrt(2 * 26)
    assert all(each.finish_reason is FinishReason.LENGTH for each in sequences)
