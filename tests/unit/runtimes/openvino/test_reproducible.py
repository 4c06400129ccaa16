"""Steps of one token each: the same bits, whatever else is computed."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("openvino")

from support.smollm2 import smollm2_gguf
from triune.core.clock import MonotonicClock
from triune.core.decoder import CacheType, DecoderStep
from triune.core.errors import UnsupportedError
from triune.core.units import Unit
from triune.engine.core import EngineCore
from triune.engine.models import write_model
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.scheduler import SchedulerLimits
from triune.engine.sequence import Ending, Sequence
from triune.engine.speculation.ngram import NgramProposer
from triune.engine.weights.open import open_checkpoint
from triune.runtimes.openvino.decoder import OpenVinoDecoder
from triune.runtimes.openvino.one_by_one import one_token_each

GREEDY = SamplingParameters(temperature=0, num_logprobs=1)


def step(*parts: tuple[int, int, list[int]], rows: list[int]) -> DecoderStep:
    """Parts are past tokens, new tokens, blocks."""
    return DecoderStep(
        input_ids=np.arange(sum(new for _, new, _ in parts)) + 100,
        position_ids=np.concatenate([np.arange(past, past + new) for past, new, _ in parts]),
        past_lengths=np.array([past for past, _, _ in parts], np.int32),
        subsequence_begins=np.cumsum([0, *(new for _, new, _ in parts)], dtype=np.int32),
        block_indices=np.array([block for _, _, blocks in parts for block in blocks], np.int32),
        block_indices_begins=np.cumsum([0, *(len(blocks) for _, _, blocks in parts)], dtype=np.int32),
        logits_indices=np.array(rows, np.int64),
    )


def test_each_token_becomes_a_sequence_with_the_blocks_up_to_it() -> None:
    given = step((3, 3, [7, 5]), (8, 1, [2, 9, 4]), rows=[2, 3])
    parted = one_token_each(given, 4)
    parted.require_fitting(10, 4)
    expected = step((3, 1, [7]), (4, 1, [7, 5]), (5, 1, [7, 5]), (8, 1, [2, 9, 4]), rows=[2, 3])
    for name, array in expected.arrays().items():
        np.testing.assert_array_equal(parted.arrays()[name], array, name)
        assert parted.arrays()[name].dtype == array.dtype


def test_one_token_is_there_twice() -> None:
    parted = one_token_each(replace(step((5, 1, [3, 1]), rows=[0]), adapters=np.array([2])), 4)
    twice = step((5, 1, [3, 1]), (5, 1, [3, 1]), rows=[0, 0])
    twice = replace(twice, input_ids=np.array([100, 100]), adapters=np.array([2, 2]))
    for name, array in twice.arrays().items():
        np.testing.assert_array_equal(parted.arrays()[name], array, name)


@pytest.mark.parametrize("options", [{}, {"precision": "fp32", "cache_type": "int8"}, {"precision": "bf16"}])
def test_what_rounds_by_more_than_one_token_is_refused(options) -> None:
    with pytest.raises(UnsupportedError, match="reproducible in fp32 with a cache in fp32 or fp16"):
        OpenVinoDecoder(None, unit=Unit.CPU, num_threads=1, num_blocks=1, is_reproducible=True, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("cache_type", ["fp32", "fp16"])
def test_greedy_answers_are_the_same_bits_in_any_company(cache_type: CacheType) -> None:
    """Of SmolLM2: alone, and together; with and without shared prefixes, pieces of prompts, guesses, preemption."""
    checkpoint = open_checkpoint(smollm2_gguf(), inexact="offsets")
    decoder = OpenVinoDecoder(
        write_model(checkpoint.config, checkpoint, "paged", num_positions=256),
        unit=Unit.CPU,
        num_threads=2,
        num_blocks=64,
        precision="fp32",
        cache_type=cache_type,
        is_reproducible=True,
    )
    rng = np.random.default_rng(1)
    shared = rng.integers(0, 40_000, 40).tolist()
    prompts = [[*shared[: 40 * (at % 2)], *rng.integers(0, 40_000, 1 + 6 * at).tolist()] for at in range(6)]

    def engine(num_blocks: int, *, guesses: bool = False, **limits: int) -> EngineCore:
        decoder.allocate(num_blocks)
        proposer = NgramProposer() if guesses else None
        return EngineCore(decoder, 49_152, MonotonicClock(), SchedulerLimits(**limits), proposer)

    def answers(core: EngineCore, texts: list[list[int]]) -> list[list[object]]:
        sequences = [core.add(each, GREEDY, Ending(6)) for each in texts]
        samples: dict[Sequence, list[object]] = {each: [] for each in sequences}
        while not core.is_idle:
            for sequence, sample in core.step():
                samples[sequence].append(sample)
        return [samples[each] for each in sequences]

    alone = [answers(engine(64), [prompt])[0] for prompt in prompts]
    assert all(len(each) == 6 for each in alone)
    assert answers(engine(64), prompts) == alone, "together, sharing what they have in common"
    again = engine(64)
    answers(again, prompts)
    assert answers(again, prompts) == alone, "read from the prefix cache"
    assert answers(engine(64, step_tokens=7), prompts) == alone, "in pieces"
    assert answers(engine(64, guesses=True), prompts) == alone, "guessed"
    assert answers(engine(9), prompts) == alone, "preempted"
    decoder.close()
