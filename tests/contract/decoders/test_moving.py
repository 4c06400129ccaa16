"""A running sequence goes on in a decoder of another runtime, with another type and layout of keys and values."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from contract.decoders.cases import CONFIGS, SeededWeights
from contract.decoders.conftest import Bench
from triune.core.clock import VirtualClock
from triune.core.decoder import CacheType
from triune.core.errors import InvalidArgumentError, UnavailableError
from triune.engine.core import EngineCore
from triune.engine.models import write_model
from triune.engine.moving.state import KeysAndValues
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.scheduler import SchedulerLimits
from triune.engine.sequence import Ending, FinishReason, Sequence
from triune.runtimes import missing

CASE = "llama 3"
GREEDY = SamplingParameters(temperature=0)
NUM_TOKENS = 12

FORMS: list[tuple[str, CacheType]] = [
    ("reference", "fp32"),
    ("openvino", "fp32"),
    ("openvino", "fp16"),
    ("openvino", "int8"),
    ("mlx", "fp32"),
    ("mlx", "bf16"),
    ("mlx", "int8"),
]
"""Runtimes with the types of their caches."""

TOLERANCES = {"fp32": 1e-4, "fp16": 0.01, "bf16": 0.05, "int8": 0.05}
"""How far the logit of a token may be below the largest one in fp32, where a cache of that type led to another token
than fp32 does; the logits of this model have a standard deviation of 5.5.
"""

Load = Callable[[tuple[str, CacheType]], EngineCore]


@pytest.fixture
def load() -> Iterator[Load]:
    benches: list[Bench] = []

    def load(form: tuple[str, CacheType]) -> EngineCore:
        name, cache_type = form
        if name != "reference" and (reason := missing().get(name)):
            pytest.skip(reason)
        benches.append(Bench(name))
        decoder = benches[-1].load(CASE, cache_type=cache_type)
        return EngineCore(decoder, CONFIGS[CASE].vocab_size, VirtualClock(), SchedulerLimits(step_tokens=24))

    yield load
    for bench in benches:
        bench.close()


def prompts() -> list[list[int]]:
    rng = np.random.default_rng(8)
    return [rng.integers(0, 48, count).tolist() for count in (40, 3)]


@functools.cache
def evaluator() -> ReferenceEvaluator:
    return ReferenceEvaluator(write_model(CONFIGS[CASE], SeededWeights(CONFIGS[CASE]), "plain").whole())


def logits_of(tokens: list[int]) -> NDArray[np.float32]:
    """The logits after each token, in fp32 and without a cache."""
    return evaluator().run(None, {"input_ids": np.array([tokens])})[0][0]


def check(sequence: Sequence, tolerance: float) -> None:
    """Each token is the one that the plain graph chooses after those before it, or is as good but for `tolerance`."""
    logits = logits_of(sequence.tokens)
    for place in range(len(sequence.prompt), len(sequence.tokens)):
        row = logits[place - 1]
        assert row[sequence.tokens[place]] >= row.max() - tolerance, f"token {place}"


def run(engine: EngineCore) -> None:
    num_steps = 0
    while not engine.is_idle:
        engine.step()
        engine.check()
        num_steps += 1
        assert num_steps < 500


@pytest.mark.sampled(3)
@pytest.mark.parametrize("there", FORMS, ids=" ".join)
@pytest.mark.parametrize("here", FORMS, ids=" ".join)
def test_an_answer_goes_on_in_another_decoder(load: Load, here: tuple[str, CacheType], there: tuple[str, CacheType]):
    source, target = load(here), load(there)
    sequences = [source.add(prompt, GREEDY, Ending(NUM_TOKENS)) for prompt in prompts()]
    while min(each.num_answered for each in sequences) < 5:
        source.step()
    form = target.cache_form
    states = [source.export(each, form=form) for each in sequences]
    assert all(bool(each.cached.form) == (form == source.cache_form) for each in states)
    assert source.is_idle
    source.check()
    moved = [target.resume(each) for each in states]
    run(target)
    assert target.pool.num_used == 0
    assert moved[0].num_cached_tokens >= 32, "full blocks are not computed again"
    tolerance = max(TOLERANCES[here[1]], TOLERANCES[there[1]])
    for before, after in zip(sequences, moved, strict=True):
        assert before.finish_reason is FinishReason.MOVED
        assert after.finish_reason is FinishReason.LENGTH
        assert after.num_answered == NUM_TOKENS
        check(after, tolerance)
    if here[1] == there[1] == "fp32":
        alone = [source.add(prompt, GREEDY, Ending(NUM_TOKENS)) for prompt in prompts()]
        run(source)
        assert [each.tokens for each in alone] == [each.tokens for each in moved]


@pytest.mark.parametrize("num_steps", [0, 1, 2, 3])
def test_a_sequence_moves_before_its_first_token(load: Load, num_steps: int) -> None:
    """It waits, or has read a part of its prompt."""
    source, target = load(("reference", "fp32")), load(("reference", "fp32"))
    sequence = source.add([*range(40)], GREEDY, Ending(3))
    for _ in range(num_steps):
        source.step()
    state = source.export(sequence)
    moved = target.resume(state)
    run(target)
    assert moved.tokens[40:] == [int(each) for each in logits_of(moved.tokens)[39:-1].argmax(1)]
    assert (moved.num_cached_tokens >= 32) == (num_steps > 1)


def test_sampled_answers_go_on_as_they_would_have(load: Load) -> None:
    asked = SamplingParameters(temperature=1.5, seed=5, repetition_penalty=1.2, frequency_penalty=0.4)
    source, target = load(("reference", "fp32")), load(("reference", "fp32"))
    whole = source.add(prompts()[0], asked, Ending(20))
    run(source)
    part = source.add(prompts()[0], asked, Ending(20))
    while part.num_answered < 7:
        source.step()
    moved = target.resume(source.export(part))
    run(target)
    assert moved.tokens == whole.tokens


def test_a_full_cache_takes_a_sequence_without_its_blocks(load: Load) -> None:
    source, target = load(("reference", "fp32")), load(("reference", "fp32"))
    holding = [target.add([*range(47, 8, -1)], GREEDY, Ending(20)), target.add([*range(4, 44)], GREEDY, Ending(20))]
    while any(each.table.num_tokens < 40 for each in holding):
        target.step()
    sequence = source.add(prompts()[0], GREEDY, Ending(NUM_TOKENS))
    while sequence.num_answered < 5:
        source.step()
    states = [source.export(sequence)] * 3
    moved = [target.resume(state, salt=bytes([place])) for place, state in enumerate(states)]
    run(target)
    for each in (*holding, *moved):
        assert each.finish_reason is FinishReason.LENGTH
        check(each, TOLERANCES["fp32"])


def test_moved_blocks_with_a_salt_are_read_by_no_other_sequence(load: Load) -> None:
    target = load(("reference", "fp32"))
    source = load(("reference", "fp32"))
    sequence = source.add(prompts()[0], GREEDY, Ending(NUM_TOKENS))
    while not sequence.num_answered:
        source.step()
    state = source.export(sequence)
    target.resume(state, salt=b"not to be trusted")
    run(target)
    other = target.add(prompts()[0], GREEDY, Ending(1))
    run(target)
    assert other.num_cached_tokens == 0


def test_states_that_do_not_fit_are_refused(load: Load) -> None:
    source, target = load(("reference", "fp32")), load(("reference", "fp32"))
    sequence = source.add(prompts()[0], GREEDY, Ending(NUM_TOKENS))
    while not sequence.num_answered:
        source.step()
    with pytest.raises(UnavailableError, match="of 40 tokens, and there is memory for 39"):
        source.export(sequence, max_tokens=39)
    assert sequence.finish_reason is None
    state = source.export(sequence)
    with pytest.raises(UnavailableError, match="the answer ended before it could be moved"):
        source.export(sequence)

    def changed(**cached: object) -> None:
        target.resume(replace(state, cached=replace(state.cached, **cached)))  # type: ignore[arg-type]

    with pytest.raises(InvalidArgumentError, match="of the form 'other' do not fit a cache of the form 'fp32"):
        changed(form="other")
    with pytest.raises(InvalidArgumentError, match="this model has"):
        changed(arrays=[each[:, :1] for each in state.cached.arrays])
    with pytest.raises(InvalidArgumentError, match="of other lengths than 40 tokens"):
        changed(arrays=[each[:20] for each in state.cached.arrays])
    with pytest.raises(InvalidArgumentError, match="comes with the keys and values of 42"):
        changed(num_tokens=42)
    assert target.is_idle
    target.check()
    assert target.pool.num_free == target.pool.num_blocks
    assert KeysAndValues().num_bytes == 0
