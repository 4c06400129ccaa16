"""Every decoder of every runtime against Hugging Face's transformers, numpy, and itself in other steps."""

import functools
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from contract.decoders.cases import CONFIGS, PackedForm, SeededWeights, Unpacked
from contract.decoders.conftest import Bench, answers
from contract.decoders.hugging_face import CASES, NUM_TOKENS, STORED, token_ids
from support.decoder_steps import Texts
from triune.core.errors import InvalidArgumentError
from triune.engine.models import write_model
from triune.engine.models.builder import Weights
from triune.engine.weights.config import LlamaConfig, LongScaling

TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
LENGTHS = (NUM_TOKENS, 7, 25)


def texts() -> list[NDArray[np.int64]]:
    """Three texts, the first of them that of the stored answers."""
    rng = np.random.default_rng(2)
    return [token_ids(), *(rng.integers(0, 48, length) for length in LENGTHS[1:])]


@functools.cache
def truth(case: str) -> list[NDArray[np.float32]]:
    """The logits of the texts by the graph in its plain form, in ONNX's evaluator."""
    config = CONFIGS[case]
    return plain(case, SeededWeights(config))


def plain(case: str, weights: Weights) -> list[NDArray[np.float32]]:
    """The same with other weights."""
    # With a cache the context decides LongRoPE's factors; in the plain form the text does, so here each is long.
    return in_plain_form(with_long_from(CONFIGS[case], 0), weights, texts())


def in_plain_form(config: Any, weights: Weights, given: list[NDArray[np.int64]]) -> list[NDArray[np.float32]]:
    evaluator = ReferenceEvaluator(write_model(config, weights, "plain").whole())
    return [evaluator.run(None, {"input_ids": text[None]})[0][0] for text in given]


def with_long_from(config: Any, num_tokens: int) -> Any:
    """The same config, with LongRoPE's long factors for texts of more than `num_tokens`."""
    if not isinstance(config, LlamaConfig):
        return config
    layers = tuple(
        replace(each, rope=replace(each.rope, scaling=replace(scaling, original_max_position_embeddings=num_tokens)))
        if isinstance(scaling := each.rope.scaling, LongScaling)
        else each
        for each in config.layers
    )
    return replace(config, layers=layers)


def check(found: list[NDArray[np.float32]], expected: list[NDArray[np.float32]]) -> None:
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, wanted, **TOLERANCE)


def test_the_cases_are_those_of_the_answers() -> None:
    assert list(CONFIGS) == list(CASES) == list(answers())


@pytest.mark.parametrize("case", CONFIGS)
def test_the_plain_form_answers_as_transformers_do(case: str) -> None:
    config = CONFIGS[case]
    (logits,) = in_plain_form(config, SeededWeights(config), texts()[:1])
    np.testing.assert_allclose(logits[STORED], answers()[case], **TOLERANCE)


def test_the_plain_form_takes_the_short_factors_for_short_texts() -> None:
    config = CONFIGS["longrope"]
    weights, given = SeededWeights(config), [token_ids()[:count] for count in (16, 17)]
    short, long = (in_plain_form(with_long_from(config, most), weights, given) for most in (1000, 0))
    found = in_plain_form(config, weights, given)
    check(found, [short[0], long[1]])
    assert np.abs(short[0] - long[0]).max() > 1e-2


@pytest.mark.parametrize("case", CONFIGS)
def test_whole_texts_give_the_answers_of_transformers(bench: Bench, case: str) -> None:
    (logits,) = Texts(bench.load(case), texts()[:1]).read({0: NUM_TOKENS})
    np.testing.assert_allclose(logits[STORED], answers()[case], **TOLERANCE)


@pytest.mark.parametrize("case", CONFIGS)
def test_chunks_single_tokens_and_mixed_sequences_change_no_answer(bench: Bench, case: str) -> None:
    found = Texts(bench.load(case), texts()).read_all(
        {1: 4, 0: 13},
        {0: 1, 1: 1},
        {2: 20, 0: 1, 1: 1},
        {0: 19, 2: 1},
        {2: 3, 1: 1},
        {0: 5, 2: 1},
        *[{0: 1}],
    )
    check(found, truth(case))


@pytest.mark.sampled(5)
@pytest.mark.parametrize("form", get_args(PackedForm))
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("case", ["llama 3", "gpt 2"])
def test_packed_weights_compute_as_their_numbers_do(bench: Bench, case: str, bits, form) -> None:
    weights = SeededWeights(CONFIGS[case], bits, form)
    found = Texts(bench.load(case, weights), texts()).read_all({0: 30, 2: 25}, {1: 7, 0: 10})
    check(found, plain(case, Unpacked(weights)))


def test_only_the_wanted_tokens_have_logits_in_their_order(bench: Bench) -> None:
    texts_ = Texts(bench.load("llama 2"), texts())
    step = texts_.step({0: 12, 1: 7})
    wanted = np.array([18, 3, 3])
    logits = texts_.decoder.run(replace(step, logits_indices=wanted))
    check([logits], [np.stack([truth("llama 2")[1][6], truth("llama 2")[0][3], truth("llama 2")[0][3]])])


def test_greedy_tokens_are_those_of_the_largest_logits(bench: Bench) -> None:
    one, other = (Texts(bench.load("llama 2"), texts()) for _ in range(2))
    for counts in ({0: 12, 1: 6}, {1: 1, 0: 1, 2: 20}, {2: 1}):
        logits = np.concatenate(one.read(counts))
        tokens = other.decoder.begin(other.step(counts)).read()
        other.lengths = list(one.lengths)
        assert tokens.dtype == np.int64
        assert tokens.tolist() == logits.argmax(axis=1).tolist()
    unread = replace(other.step({2: 1}), logits_indices=np.zeros(0, np.int64))
    assert other.decoder.begin(unread).read().tolist() == []


def test_a_step_may_begin_with_tokens_of_the_one_before(bench: Bench) -> None:
    one, other = (Texts(bench.load("llama 2"), texts()) for _ in range(2))
    first = {0: 12, 1: 6, 2: 3}
    plain = [each[-1].argmax() for each in one.read(first)]
    step = other.step(first)
    begun = other.decoder.begin(replace(step, logits_indices=step.subsequence_begins[1:].astype(np.int64) - 1))
    for texts_ in (one, other):
        texts_.lengths = [12, 6, 3]
        texts_.texts = [each.copy() for each in texts_.texts]
    # The third has a known token, the others those that come of the step before, in another order.
    one.texts[0][12], one.texts[1][6] = plain[0], plain[1]
    expected = [each[-1].argmax() for each in one.read({1: 1, 2: 1, 0: 1})]
    following = replace(other.step({1: 1, 2: 1, 0: 1}), sources=np.array([1, -1, 0]))
    following.input_ids[[0, 2]] = 0
    found = other.decoder.begin(following, begun)
    assert found.read().tolist() == expected
    assert begun.read().tolist() == plain
    kept = [texts_.decoder.read_tokens(texts_.blocks[0], 13) for texts_ in (one, other)]
    for got, wanted in zip(*kept, strict=True):
        np.testing.assert_allclose(got, wanted, **TOLERANCE)


def test_sources_are_one_for_each_token(bench: Bench) -> None:
    texts_ = Texts(bench.load("llama 2"), texts())
    step = replace(texts_.step({0: 3}), sources=np.array([-1, 0]))
    with pytest.raises(InvalidArgumentError, match=r"3 tokens has sources of the shape \[2\]"):
        texts_.decoder.begin(step)
