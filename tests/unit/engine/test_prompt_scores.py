"""The probabilities of a prompt's own tokens: right wherever steps are cut, and nobody else's answer changes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.scripted import EOS, POISON, VOCAB, ScriptedDecoder, answers_of, scripted_engine
from triune.core.clock import VirtualClock
from triune.core.errors import UnsupportedError
from triune.engine.core import EngineCore
from triune.engine.generation import Generation
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.sampling.prompt_scores import PromptScores
from triune.engine.scheduler import SCORED_TOKENS, SchedulerLimits
from triune.engine.sequence import Ending

SCRIPT = b"It was the best of times, it was the worst of times. "
GREEDY = SamplingParameters(temperature=0)


def script(position: int) -> int:
    return SCRIPT[position % len(SCRIPT)]


def logprob(token: int, position: int) -> float:
    """The decoder's logits are 20 for the script's token and 0 for all others."""
    return (20.0 if token == script(position) else 0.0) - math.log(math.exp(20.0) + VOCAB - 1)


def expected(prompt: bytes) -> list[float]:
    return [logprob(token, position) for position, token in enumerate(prompt) if position]


def asked(prompt: bytes, **fields: object) -> Generation:
    given = {"sampling": GREEDY, "max_tokens": 5, "num_prompt_logprobs": 2, **fields}
    return Generation(list(prompt), **given)  # type: ignore[arg-type]


async def test_each_token_of_a_prompt_has_its_probability() -> None:
    prompt = b"It wxs the bezt"
    async with scripted_engine(ScriptedDecoder(SCRIPT)) as engine:
        deltas = [delta async for delta in engine.generate(asked(prompt))]
        found = [delta.prompt for delta in deltas if delta.prompt is not None]
    assert len(found) == 1
    assert deltas[0].prompt is found[0]
    tokens = found[0].slice(0, 100)
    assert bytes(each.token for each in tokens) == prompt == b"".join(each.text for each in tokens)
    assert math.isnan(tokens[0].logprob)
    np.testing.assert_allclose([each.logprob for each in tokens[1:]], expected(prompt), rtol=1e-5, atol=1e-7)
    assert [each.top[0].token for each in tokens[1:]] == [*SCRIPT[1 : len(prompt)]]
    assert all(len(each.top) == 2 for each in tokens[1:])
    assert "".join(delta.text for delta in deltas) == SCRIPT[15:20].decode()


async def test_a_prompt_in_the_prefix_cache_is_computed_again_and_only_then() -> None:
    prompt = SCRIPT[:40]
    async with scripted_engine(ScriptedDecoder(SCRIPT)) as engine:
        for fields, num_cached in (({}, 0), ({}, 0), ({"num_prompt_logprobs": None}, 36)):
            ((_, last),) = await answers_of(engine, asked(prompt, **fields))
            assert last.usage is not None
            assert last.usage.num_cached_tokens == num_cached


async def test_a_long_prompt_takes_few_rows_of_logits_in_each_step() -> None:
    decoder = ScriptedDecoder(SCRIPT)
    async with scripted_engine(decoder) as engine:
        deltas = [delta async for delta in engine.generate(asked(SCRIPT * 4, num_answers=2))]
    assert max(len(step.logits_indices) for step in decoder.steps) <= SCORED_TOKENS + 1
    assert [delta.index for delta in deltas if delta.prompt is not None] == [0]
    assert deltas[0].prompt is not None
    np.testing.assert_allclose(
        [each.logprob for each in deltas[0].prompt.slice(1, 1000)], expected(SCRIPT * 4), rtol=1e-5, atol=1e-7
    )


async def test_logits_that_cannot_be_used_give_no_probability() -> None:
    scores = PromptScores([1, 2, 3], 1)
    scores.read(range(2), np.array([[0, np.nan, 0, 0], [0, 0, 0, 7]], np.float32))
    assert math.isnan(scores.at(1)[0])
    assert scores.at(1)[1] == []
    assert scores.at(2)[1] == [(3, pytest.approx(7 - math.log(math.exp(7) + 3)))]
    assert scores.is_complete


async def test_a_poisoned_prompt_still_fails_alone() -> None:
    async with scripted_engine(ScriptedDecoder(SCRIPT)) as engine:
        with pytest.raises(Exception, match="NaN"):
            await answers_of(engine, asked(b"ab" + bytes([POISON])))


def test_a_sequence_is_not_moved_before_its_prompt_is_read() -> None:
    engine = EngineCore(ScriptedDecoder(SCRIPT), VOCAB, VirtualClock())
    sequence = engine.add(SCRIPT * 3, GREEDY, Ending(4), num_prompt_logprobs=0)
    engine.step()
    with pytest.raises(UnsupportedError, match="cannot be moved before"):
        engine.export(sequence)


@given(
    st.lists(
        st.tuples(st.integers(1, 40), st.integers(1, 20), st.booleans(), st.integers(0, 2)), min_size=1, max_size=6
    ),
    st.integers(12, 24),
    st.integers(3, 40),
)
@settings(max_examples=60, deadline=None)
def test_probabilities_are_right_whatever_gives_up_its_blocks(
    asked: list[tuple[int, int, bool, int]], num_blocks: int, step_tokens: int
) -> None:
    decoder = ScriptedDecoder(SCRIPT, num_blocks=num_blocks)
    limits = SchedulerLimits(step_tokens=step_tokens, sequences=4, context_tokens=48)
    engine = EngineCore(decoder, VOCAB, VirtualClock(), limits)
    sequences = []
    for num_prompt, max_tokens, is_scored, priority in asked:
        prompt = [*(SCRIPT * 2)[: min(num_prompt, 47 - max_tokens)]]
        prompt[len(prompt) // 2] = 120
        num_top = 1 if is_scored else None
        ending = Ending(max_tokens, frozenset({EOS}))
        sequences.append(engine.add(prompt, GREEDY, ending, priority=priority, num_prompt_logprobs=num_top))
        engine.step()
    while not engine.is_idle:
        engine.step()
        engine.check()
    for sequence, (_, _, is_scored, _) in zip(sequences, asked, strict=True):
        begin = len(sequence.prompt)
        assert sequence.tokens[begin:] == [script(position) for position in range(begin, len(sequence.tokens))]
        assert (sequence.scores is not None) is is_scored
        if sequence.scores is not None:
            assert sequence.scores.is_complete
            np.testing.assert_allclose(sequence.scores.logprobs, expected(bytes(sequence.prompt)), rtol=1e-5, atol=1e-7)
