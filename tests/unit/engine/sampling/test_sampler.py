"""The sampler against a slow one that sorts everything, and against what each parameter promises."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from triune.core.decoder import best_tokens
from triune.core.errors import InvalidArgumentError
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.sampling.sampler import FAILED, Sample, SamplingState, sample, sample_row

RNG = np.random.default_rng(0)


def state(prompt: tuple[int, ...] = (), index: int = 0, **parameters: Any) -> SamplingState:
    return SamplingState(SamplingParameters(**({"seed": 7} | parameters)), prompt, index)


def probabilities(logits: NDArray[np.float32], parameters: SamplingParameters) -> NDArray[np.float64]:
    """By definition: sort all tokens, leave out, normalize."""
    weights = np.exp((logits.astype(np.float64) - logits.max()) / parameters.temperature)
    weights[weights < parameters.min_p] = 0
    order = np.argsort(-weights, kind="stable")
    kept = order[: parameters.top_k or None]
    share = weights[kept] / weights[kept].sum()
    kept = kept[share.cumsum() - share < parameters.top_p * (1 - 1e-9)]
    result = np.zeros_like(weights)
    result[kept] = weights[kept] / weights[kept].sum()
    return result


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"temperature": 0.6},
        {"temperature": 3.0},
        {"top_k": 5},
        {"top_k": 1},
        {"top_k": 10_000},
        {"top_p": 0.9},
        {"top_p": 1e-6},
        {"top_p": 0.999999},
        {"min_p": 0.2},
        {"temperature": 1.7, "top_k": 40, "top_p": 0.8, "min_p": 0.02},
    ],
    ids=str,
)
def test_tokens_are_drawn_by_their_probabilities(parameters: dict[str, float]) -> None:
    logits = (RNG.standard_normal(600) * 2).astype(np.float32)
    expected = probabilities(logits, SamplingParameters(**parameters))  # type: ignore[arg-type]
    number, drawn = 4000, state(**parameters)
    rows = np.broadcast_to(logits, (50, 600))
    found = Counter(each.token for _ in range(number // 50) for each in sample(rows, [drawn] * 50))
    assert all(expected[token] > 0 for token in found), "only tokens that are kept"
    # Pearson's chi-square over the tokens that are expected ten times, and the rest together.
    is_common = expected * number >= 10
    counts = np.array([found.get(token, 0) for token in range(600)])
    pairs = [*zip(counts[is_common], expected[is_common] * number, strict=True)]
    pairs.append((counts[~is_common].sum(), expected[~is_common].sum() * number))
    statistic = sum((seen - wanted) ** 2 / wanted for seen, wanted in pairs if wanted > 1e-9)
    freedom = max(1, len(pairs) - 1)
    assert statistic < freedom + 5 * math.sqrt(2 * freedom) + 5


def test_each_sequence_has_its_own_parameters_and_numbers() -> None:
    logits = RNG.standard_normal((6, 1000)).astype(np.float32)
    kinds = [{"temperature": 0.0}, {"top_k": 3}, {"top_p": 0.5}, {}, {"min_p": 0.5}, {"temperature": 0.0, "seed": None}]

    def together() -> list[int]:
        return [each.token for each in sample(logits, [state(index=i, **kind) for i, kind in enumerate(kinds)])]

    alone = [sample(logits[i : i + 1], [state(index=i, **kind)])[0].token for i, kind in enumerate(kinds)]
    assert together() == together() == alone
    assert [alone[0], alone[5]] == [int(logits[0].argmax()), int(logits[5].argmax())]
    others = [sample(logits[3:4], [state(index=i)])[0].token for i in range(8)]
    assert len(set(others)) > 4, "answers to one prompt differ"


def test_bias_and_penalties() -> None:
    logits = np.array([[2.0, 1.9, 1.8, -1.0, -3.0]], np.float32)

    def best(drawn: SamplingState) -> int:
        return sample(logits, [drawn])[0].token

    assert best(state(temperature=0, logit_bias={0: -100.0})) == 1
    assert best(state(temperature=0, logit_bias={4: 10.0})) == 4
    # A token of the prompt: 2 / 1.2 < 1.9. Negative logits are multiplied: -1 becomes -10.
    assert best(state((0,), temperature=0, repetition_penalty=1.2)) == 1
    assert best(state((0, 1, 2, 3), temperature=0, repetition_penalty=10.0)) == 0
    assert best(state((0,), temperature=0, presence_penalty=2.0)) == 0, "the prompt does not count"
    answered = state(temperature=0, presence_penalty=0.15)
    answered.append(0)
    answered.append(0)
    assert best(answered) == 1
    often = state(temperature=0, frequency_penalty=0.15)
    often.append(0)
    often.append(1)
    assert best(often) == 0 or logits[0, 2] > logits[0, 0] - 0.15
    often.append(0)
    assert best(often) == 2
    assert logits.tolist() == [[np.float32(each) for each in (2.0, 1.9, 1.8, -1.0, -3.0)]], "the logits are not changed"


def test_only_allowed_tokens_are_chosen() -> None:
    logits = RNG.standard_normal((2, 50)).astype(np.float32)
    mask = np.zeros(50, np.bool_)
    mask[[4, 9]] = True
    for _ in range(20):
        states = state(seed=None), state(temperature=0)
        bests = best_tokens(logits).tolist()
        found = [sample_row(row, best, each, mask) for row, best, each in zip(logits, bests, states, strict=True)]
        assert found[0].token in (4, 9)
        assert found[1].token == max((4, 9), key=lambda token: logits[1, token])


def test_logits_that_cannot_be_used_fail_their_own_sequence() -> None:
    logits = RNG.standard_normal((5, 8)).astype(np.float32)
    logits[1, 3], logits[2, 0], logits[3] = np.nan, np.inf, -np.inf
    found = sample(logits, [state(temperature=0)] * 5)
    assert [each == FAILED for each in found] == [False, True, True, True, False]
    assert sample_row(logits[4], 3, state(), np.zeros(8, np.bool_)) == FAILED
    logits[0, :7] = -np.inf
    assert sample(logits[:1], [state()])[0] == Sample(7)


@pytest.mark.parametrize("temperature", [1e-300, 1e-46, 1e-38, 1e-20, 1e-7, 2e-5])
@pytest.mark.parametrize("rest", [{}, {"top_p": 0.5}, {"top_k": 5}, {"min_p": 0.5}, {"num_logprobs": 2}], ids=str)
def test_a_tiny_temperature_takes_the_most_probable_token(temperature: float, rest: dict[str, Any]) -> None:
    logits = RNG.standard_normal((4, 1000)).astype(np.float32) * 30
    logits[3, :999] = -np.inf
    with np.errstate(all="raise", under="ignore"):
        found = sample(logits, [state(temperature=temperature, **rest) for _ in logits])
    assert [each.token for each in found] == logits.argmax(axis=1).tolist()


def test_log_probabilities_are_the_models_own() -> None:
    logits = RNG.standard_normal((1, 30)).astype(np.float32)
    right = logits[0] - np.log(np.exp(logits[0].astype(np.float64)).sum())
    (found,) = sample(logits, [state(temperature=0.5, num_logprobs=3, logit_bias={2: 100.0})])
    assert found.token == 2
    assert found.logprob == pytest.approx(right[2], abs=1e-6)
    assert found.rank == np.argsort(-right).tolist().index(2) + 1
    best = np.argsort(-right)[:3]
    assert [token for token, _ in found.top] == best.tolist()
    assert [value for _, value in found.top] == pytest.approx(right[best].tolist(), abs=1e-6)
    (found,) = sample(logits, [state(num_logprobs=0)])
    assert found.top == ()
    assert not math.isnan(found.logprob)


@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0, 3000.0])
def test_the_most_probable_tokens_however_far_apart(spread: float) -> None:
    logits = (RNG.standard_normal((1, 500)) * spread).astype(np.float32)
    wide = logits[0].astype(np.float64)
    right = wide - wide.max() - np.log(np.exp(wide - wide.max()).sum())
    (found,) = sample(logits, [state(temperature=0, num_logprobs=20)])
    assert [token for token, _ in found.top] == np.argsort(-right, kind="stable")[:20].tolist()
    assert [value for _, value in found.top] == pytest.approx(right[[token for token, _ in found.top]], rel=1e-6)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1; it must be between 0 and 100"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"top_p": 1.1}, "top_p is 1.1; it must be between 0 and 1"),
        ({"top_p": 0.0}, "top_p is 0; it must be above 0"),
        ({"top_k": -1}, "top_k is -1"),
        ({"min_p": 2.0}, "min_p is 2.0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"presence_penalty": 3.0}, "presence_penalty is 3.0; it must be between -2 and 2"),
        ({"frequency_penalty": -2.5}, "frequency_penalty is -2.5"),
        ({"logit_bias": {5: 101.0}}, "logit_bias of token 5 is 101.0; it must be between -100 and 100"),
        ({"logit_bias": {5: math.inf}}, "logit_bias of token 5 is inf"),
        ({"num_logprobs": 21}, "top_logprobs is 21; it must be between 0 and 20"),
    ],
)
def test_what_is_out_of_range_is_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        SamplingParameters(**parameters)


def test_a_bias_of_a_token_that_the_model_lacks_is_refused() -> None:
    SamplingParameters(logit_bias={9: 1.0}).check_vocabulary(10)
    with pytest.raises(InvalidArgumentError, match="logit_bias names token 10; the model's tokens are 0 to 9"):
        SamplingParameters(logit_bias={10: 1.0}).check_vocabulary(10)
