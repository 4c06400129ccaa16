"""The engine over every decoder: what many sequences get together is what each gets from the plain graph, alone."""

from pathlib import Path

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from contract.decoders.cases import CONFIGS, SeededWeights
from contract.decoders.conftest import Bench
from triune.core.clock import VirtualClock
from triune.core.errors import InternalError, InvalidArgumentError
from triune.engine.core import EngineCore
from triune.engine.kv.second_tier import SecondTier
from triune.engine.models import write_model
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.scheduler import SchedulerLimits
from triune.engine.sequence import Ending, FinishReason, Sequence
from triune.engine.speculation.ngram import NgramProposer

GREEDY = SamplingParameters(temperature=0)
CASE = "llama 3"


def engine_of(bench: Bench, *, num_blocks: int = 12, **limits: int) -> EngineCore:
    decoder = bench.load(CASE, num_blocks=num_blocks)
    return EngineCore(decoder, CONFIGS[CASE].vocab_size, VirtualClock(), SchedulerLimits(**limits))


def run(engine: EngineCore) -> None:
    num_steps = 0
    while not engine.is_idle:
        engine.step()
        engine.check()
        num_steps += 1
        assert num_steps < 2000


def alone(prompt: list[int], max_tokens: int, case: str = CASE) -> list[int]:
    """The greedy continuation by the graph without a cache."""
    config = CONFIGS[case]
    evaluator = ReferenceEvaluator(write_model(config, SeededWeights(config), "plain").whole())
    tokens = list(prompt)
    for _ in range(max_tokens):
        (logits,) = evaluator.run(None, {"input_ids": np.array([tokens])})
        tokens.append(int(logits[0, -1].argmax()))
    return tokens


def prompts() -> list[list[int]]:
    rng = np.random.default_rng(5)
    shared = rng.integers(0, 48, 34).tolist()
    return [[*shared, 1, 2], [*shared, 3], rng.integers(0, 48, 5).tolist(), [7], [*shared, 1, 2]]


def test_sequences_together_get_what_each_gets_alone(bench: Bench) -> None:
    engine = engine_of(bench, step_tokens=16)
    sequences: list[Sequence] = []
    for prompt in prompts():
        sequences.append(engine.add(prompt, GREEDY, Ending(6)))
        engine.step()
    run(engine)
    for sequence, prompt in zip(sequences, prompts(), strict=True):
        assert sequence.tokens == alone(prompt, 6)
        assert sequence.finish_reason is FinishReason.LENGTH
    assert sequences[-1].num_cached_tokens > 0, "it shares the first one's blocks"


def test_a_cache_too_small_for_all_changes_no_answer(bench: Bench) -> None:
    block_size = bench.load(CASE).block_size
    blocks = 1 + -(-(36 + 8) // block_size)
    engine = engine_of(bench, num_blocks=blocks, step_tokens=40)
    sequences = [engine.add(prompt, GREEDY, Ending(8)) for prompt in prompts()]
    run(engine)
    for sequence, prompt in zip(sequences, prompts(), strict=True):
        assert sequence.tokens == alone(prompt, 8)


@pytest.mark.parametrize("is_kept", [True, False])
def test_sequences_that_gave_up_their_blocks_go_on_where_they_were(bench: Bench, is_kept: bool) -> None:
    """With keys and values that were moved out of the cache, tokens are computed once; without, again."""
    decoder = bench.load(CASE)
    # Two sequences fit the cache, until both have grown.
    size = decoder.block_size
    decoder.allocate(3)
    rng = np.random.default_rng(9)
    given = [rng.integers(0, 48, size - 2).tolist() for _ in range(2)]
    engine = EngineCore(
        decoder,
        CONFIGS[CASE].vocab_size,
        VirtualClock(),
        SchedulerLimits(step_tokens=100),
        preempted_bytes=5 * decoder.block_bytes if is_kept else 0,
    )
    sequences = [engine.add(prompt, GREEDY, Ending(8)) for prompt in given]
    num_computed = 0
    while not engine.is_idle:
        engine.step()
        engine.check()
        num_computed += engine.last_plan.num_tokens
        # As if others needed the room.
        engine.pool.forget_cached()
    for sequence, prompt in zip(sequences, given, strict=True):
        assert sequence.tokens == alone(prompt, 8)
    state = engine.state()
    assert state.num_preempted > 0
    once = sum(len(each.tokens) - 1 for each in sequences)
    if is_kept:
        assert state.num_moved_out == state.num_preempted
        assert num_computed == once
    else:
        assert state.num_moved_out == 0
        assert num_computed > once


def test_guesses_change_no_answer(bench: Bench) -> None:
    """What a model of random weights says soon goes in circles, so that its past tells its future."""
    decoder = bench.load(CASE, num_blocks=30)
    engine = EngineCore(
        decoder, CONFIGS[CASE].vocab_size, VirtualClock(), SchedulerLimits(step_tokens=64), NgramProposer()
    )
    asked = [[1, 2, 3] * 8, [5, 6, 7, 8, 9] * 5, *prompts()]
    sequences = [engine.add(prompt, GREEDY, Ending(24)) for prompt in asked]
    run(engine)
    assert [sequence.tokens for sequence in sequences] == [alone(prompt, 24) for prompt in asked]
    assert 0 < engine.speculator.num_right < engine.speculator.num_guessed, "some were right, and some were wrong"


def test_blocks_come_back_from_files_after_a_restart(bench: Bench, tmp_path: Path) -> None:
    decoder = bench.load(CASE, num_blocks=6)
    asked = [*prompts(), [*range(40, 5, -1)], [*range(36)], prompts()[0]]

    def answers() -> list[Sequence]:
        decoder.allocate(6)
        tier = SecondTier(decoder, tmp_path / "key", 100 * decoder.block_bytes)
        engine = EngineCore(
            decoder, CONFIGS[CASE].vocab_size, VirtualClock(), SchedulerLimits(step_tokens=40), second_tier=tier
        )
        found: list[Sequence] = []
        for prompt in asked:
            found.append(engine.add(prompt, GREEDY, Ending(4)))
            run(engine)
        engine.close()
        assert tier.disk.files.num_broken == 0
        return found

    expected = [alone(prompt, 4) for prompt in asked]
    first, second = answers(), answers()
    assert [each.tokens for each in first] == [each.tokens for each in second] == expected
    assert first[0].num_cached_tokens == 0
    assert second[0].num_cached_tokens >= 32, "they were in files"
    assert first[-1].num_cached_tokens >= 32, "they were evicted, and came back"
    for file in (tmp_path / "key").glob("*.kv"):
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    decoder.allocate(6)
    tier = SecondTier(decoder, tmp_path / "key", 100 * decoder.block_bytes)
    engine = EngineCore(decoder, CONFIGS[CASE].vocab_size, VirtualClock(), second_tier=tier)
    sequence = engine.add(asked[0], GREEDY, Ending(4))
    run(engine)
    engine.close()
    assert (sequence.tokens, sequence.num_cached_tokens) == (expected[0], 0)
    assert tier.disk.files.num_broken > 0


def test_a_cancelled_sequence_leaves_the_others_alone(bench: Bench) -> None:
    engine = engine_of(bench)
    first, second = (engine.add(prompt, GREEDY, Ending(6)) for prompt in prompts()[:2])
    engine.step()
    engine.cancel(first)
    run(engine)
    assert (first.finish_reason, first.num_answered) == (FinishReason.CANCELLED, 1)
    assert second.tokens == alone(prompts()[1], 6)


def test_tokens_that_the_model_lacks_are_refused(bench: Bench) -> None:
    engine = engine_of(bench)
    for prompt in ([48], [1, -1]):
        with pytest.raises(InvalidArgumentError, match="the model's tokens are 0 to 47"):
            engine.add(prompt, GREEDY, Ending(1))
    with pytest.raises(InvalidArgumentError, match="logit_bias names token 48"):
        engine.add([1], SamplingParameters(logit_bias={48: 1.0}), Ending(1))
    assert engine.is_idle


def test_a_step_that_fails_fails_its_own_sequences(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = bench.load(CASE)
    engine = EngineCore(decoder, CONFIGS[CASE].vocab_size, VirtualClock())
    broken = engine.add([1, 2, 3], GREEDY, Ending(4))

    def fail(_: object) -> None:
        raise RuntimeError("no more power")

    with monkeypatch.context() as patch:
        patch.setattr(type(decoder), "begin", lambda self, step, before=None: fail(step))
        assert engine.step() == [(broken, None)]
    assert broken.finish_reason is FinishReason.ERROR
    assert isinstance(broken.error, InternalError)
    assert "RuntimeError: no more power" in str(broken.error)
    engine.check()
    good = engine.add([1, 2, 3], GREEDY, Ending(4))
    run(engine)
    assert good.tokens == alone([1, 2, 3], 4)
