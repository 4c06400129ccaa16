"""Draws the next token of each sequence of a step.

A whole vocabulary is never sorted: for 32 sequences and 50,000 tokens that would take longer than a step of a small
model. Only tokens above a threshold are sorted, and it is lowered until there are enough for `top_k` or `top_p`.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from triune.core.decoder import NO_TOKEN, best_tokens
from triune.core.errors import InvalidArgumentError
from triune.engine.sampling.parameters import SamplingParameters

_THRESHOLDS = (3e-2, 1e-3, 1e-5, 0.0)
"""Thresholds for a token's weight, as shares of the largest weight. If too few tokens are above a threshold, the next
lower one is tried.
"""

_GROUP = 256
"""The number of neighbouring token ids in a group. To draw from the whole vocabulary, a group is drawn first, by the
sum of its probabilities.
"""


_MOST: Final = (1 << 128) - 1


class RandomState(NamedTuple):
    """The state of a random number generator, PCG64: two integers of 128 bits."""

    state: int
    increment: int


class SamplingState:
    """The sampler's state for one sequence: its random numbers, and the tokens so far.

    Attributes:
        parameters: how its tokens are chosen.
    """

    def __init__(self, parameters: SamplingParameters, prompt: Sequence[int], index: int = 0) -> None:
        """Args:
        parameters: how its tokens are chosen.
        prompt: the prompt's token ids.
        index: the index among several answers to the same prompt. Each answer draws its own random numbers.
        """
        self.parameters = parameters
        entropy = None if parameters.seed is None else [parameters.seed & (2**64 - 1), index]
        self._random = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
        self._seen = dict.fromkeys(prompt) if parameters.repetition_penalty != 1 else {}
        self._counts: dict[int, int] = {}
        self._bias = (
            np.fromiter(parameters.logit_bias, np.int64),
            np.fromiter(parameters.logit_bias.values(), np.float32, len(parameters.logit_bias)),
        )

    @property
    def random_state(self) -> RandomState:
        """The state of the random number generator. Setting it raises InvalidArgumentError if the state is invalid."""
        inner: dict[str, Any] = self._random.bit_generator.state["state"]
        return RandomState(int(inner["state"]), int(inner["inc"]))

    @random_state.setter
    def random_state(self, value: RandomState) -> None:
        if not (0 <= value.state <= _MOST and 0 < value.increment <= _MOST and value.increment % 2):
            raise InvalidArgumentError(
                f"the state of random numbers is {value.state:#x} and {value.increment:#x}; it must be two whole "
                "numbers of 128 bits, the second one odd"
            )
        state = {"state": value.state, "inc": value.increment}
        self._random.bit_generator.state = {"bit_generator": "PCG64", "state": state, "has_uint32": 0, "uinteger": 0}

    def fork(self) -> "SamplingState":
        """A copy of the state, which reports no probabilities."""
        other = copy(self)
        other.parameters = replace(self.parameters, num_logprobs=None)
        if not self.parameters.is_greedy:
            other._random = np.random.Generator(np.random.PCG64(0))
            other.random_state = self.random_state
        other._seen, other._counts = dict(self._seen), dict(self._counts)
        return other

    def append(self, token: int) -> None:
        """Record a token of the answer. Call this once for each token that was accepted."""
        if self.parameters.has_penalties:
            self._counts[token] = self._counts.get(token, 0) + 1
            if self.parameters.repetition_penalty != 1:
                self._seen[token] = None

    def uniform(self) -> float:
        """The next random number in [0, 1)."""
        return self._random.random()

    def adjust(self, logits: NDArray[np.float32]) -> None:
        """Add the bias and the penalties to one row of logits, FP32 [vocabulary], in place."""
        tokens, bias = self._bias
        if len(tokens):
            logits[tokens] += bias
        parameters = self.parameters
        if self._seen:
            seen = np.fromiter(self._seen, np.int64, len(self._seen))
            values = logits[seen]
            penalty = np.float32(parameters.repetition_penalty)
            logits[seen] = np.where(values > 0, values / penalty, values * penalty)
        if self._counts and (parameters.presence_penalty or parameters.frequency_penalty):
            tokens = np.fromiter(self._counts, np.int64, len(self._counts))
            counts = np.fromiter(self._counts.values(), np.float32, len(self._counts))
            logits[tokens] -= counts * parameters.frequency_penalty + parameters.presence_penalty

    @property
    def changes_logits(self) -> bool:
        """Whether `adjust` may change the logits."""
        return bool(len(self._bias[0]) or self._seen or self._counts)

    @property
    def takes_best(self) -> bool:
        """Whether the next token is the one with the largest logit, and no probability is wanted."""
        return self.parameters.is_greedy and self.parameters.num_logprobs is None and not self.changes_logits


@dataclass(frozen=True, slots=True)
class Sample:
    """The token chosen for one sequence.

    Attributes:
        token: its id; -1 if the logits hold NaN, or leave no token, so that the sequence cannot go on.
        logprob: the logarithm of its probability by the model's own logits, without bias, penalties and temperature;
            NaN if no probabilities are wanted.
        top: the ids and log probabilities of the most probable tokens, the most probable first.
        rank: its place among all tokens by their probability, from 1 on; 0 if no probabilities are wanted.
    """

    token: int
    logprob: float = float("nan")
    top: tuple[tuple[int, float], ...] = ()
    rank: int = 0


FAILED = Sample(NO_TOKEN)
"""The sample of a sequence whose logits cannot be used."""


def sample(logits: NDArray[np.float32], states: Sequence[SamplingState]) -> list[Sample]:
    """Choose the next token of each sequence.

    Args:
        logits: FP32 [sequences, vocabulary]. They are not changed.
        states: one for each row. Each draws one random number, unless its choice is greedy.
    """
    return [
        sample_row(row, best, state)
        for row, best, state in zip(logits, best_tokens(logits).tolist(), states, strict=True)
    ]


def sample_row(
    logits: NDArray[np.float32], best: int, state: SamplingState, allowed: NDArray[np.bool_] | None = None
) -> Sample:
    """Choose the next token of one sequence. Sequences are handled one after the other, since the row of one fits into
    the CPU's caches.

    Args:
        logits: FP32 [vocabulary]. They are not changed. A logit of -inf is a token that is never chosen.
        best: the index of the largest logit, from `best_tokens`.
        state: draws one random number, unless its choice is greedy.
        allowed: the tokens that may be chosen, bool [vocabulary]; None for all.
    """
    token = best if best == NO_TOKEN else _choose(logits, best, state, allowed)
    return _with_logprobs(token, logits, state.parameters)


def _choose(logits: NDArray[np.float32], best: int, state: SamplingState, allowed: NDArray[np.bool_] | None) -> int:
    """Choose a token by one row of logits, FP32 [vocabulary]. `best` is the token with the largest logit; `allowed` is
    bool [vocabulary], the tokens that may be chosen; None for all.
    """
    parameters = state.parameters
    if allowed is not None or state.changes_logits:
        logits = logits.copy()
        state.adjust(logits)
        if allowed is not None:
            logits[~allowed] = -np.inf
        best = int(logits.argmax())
        if logits[best] == -np.inf:
            return FAILED.token
    if parameters.is_greedy:
        return best
    # The weight of a token with the logit x is exp((x - max) / temperature), so that the most probable token has the
    # weight 1.
    weights = logits - logits[best]
    if parameters.temperature != 1:
        weights /= np.float32(parameters.temperature)
    np.exp(weights, out=weights)
    return _draw(weights, parameters, state.uniform())


def _draw(weights: NDArray[np.float32], parameters: SamplingParameters, uniform: float) -> int:
    """Leave tokens out by min_p, top_k and top_p, then draw one of the others.

    Args:
        weights: FP32 [vocabulary], the probabilities divided by the largest one, so that the largest weight is 1. They
            may be overwritten.
        parameters: how tokens are left out.
        uniform: a random number in [0, 1), at which the cumulative distribution is inverted.
    """
    if parameters.min_p > 0:
        weights[weights < parameters.min_p] = 0
    if parameters.top_p == 1 and not parameters.top_k:
        return _draw_of_all(weights, uniform)
    tokens = _most_probable(weights, parameters)
    cumulative = np.cumsum(weights[tokens], dtype=np.float64)
    # Keep the most probable tokens until their sum reaches top_p times the total, with the token that reaches it. If
    # top_k is set, the total is that of the top_k tokens, otherwise that of the whole vocabulary.
    total = float(cumulative[-1] if parameters.top_k else weights.sum(dtype=np.float64))
    num_kept = int(cumulative.searchsorted(parameters.top_p * total * (1 - 1e-9))) + 1
    return int(tokens[_position(cumulative[:num_kept], uniform)])


def _most_probable(weights: NDArray[np.float32], parameters: SamplingParameters) -> NDArray[np.int64]:
    """The tokens with the largest of `weights`, FP32 [vocabulary], the largest first (of equal ones, the first). There
    are top_k of them; if top_k is 0, at least as many as together reach top_p.
    """
    total = weights.sum(dtype=np.float64)
    tokens = np.empty(0, np.int64)
    for threshold in _THRESHOLDS:
        tokens = np.flatnonzero(weights > threshold)
        if parameters.top_k:
            is_enough = len(tokens) >= parameters.top_k
        else:
            is_enough = weights[tokens].sum(dtype=np.float64) >= parameters.top_p * total
        if is_enough:
            break
    tokens = tokens[np.argsort(-weights[tokens], kind="stable")]
    return tokens[: parameters.top_k] if parameters.top_k else tokens


def _draw_of_all(weights: NDArray[np.float32], uniform: float) -> int:
    """Draw a token of the whole vocabulary by its weight: first a group of neighbours by their sum, then a token of the
    group.
    """
    begins = np.arange(0, len(weights), _GROUP)
    sums: NDArray[np.float64] = np.add.reduceat(weights, begins, dtype=np.float64)
    cumulative = np.cumsum(sums)
    group = _position(cumulative, uniform)
    before = cumulative[group - 1] if group else 0.0
    inside = np.cumsum(weights[group * _GROUP : (group + 1) * _GROUP], dtype=np.float64)
    return group * _GROUP + _position(inside, min(max((uniform * cumulative[-1] - before) / inside[-1], 0.0), 1.0))


def _position(cumulative: NDArray[np.float64], uniform: float) -> int:
    """The first position whose cumulative weight exceeds the share `uniform` of the total."""
    total = float(cumulative[-1])
    found = int(cumulative.searchsorted(uniform * total, side="right"))
    # Because of rounding, `uniform * total` may be larger than every cumulative weight. Then the last position with a
    # weight above 0 is taken.
    return min(found, int(cumulative.searchsorted(total)))


def _with_logprobs(token: int, logits: NDArray[np.float32], parameters: SamplingParameters) -> Sample:
    if token == FAILED.token:
        return FAILED
    if parameters.num_logprobs is None:
        return Sample(token)
    logprob, top = token_logprobs(logits, token, parameters.num_logprobs)
    return Sample(token, logprob, top, rank_of(token, logits))


def rank_of(token: int, logits: NDArray[np.float32]) -> int:
    """1 plus the number of tokens whose logits, FP32 [vocabulary], are above that of `token`."""
    return 1 + int(np.count_nonzero(logits > logits[token]))


def token_logprobs(
    logits: NDArray[np.float32], token: int, num_top: int
) -> tuple[float, tuple[tuple[int, float], ...]]:
    """The logarithm of a token's probability, and the most probable tokens with theirs, the most probable first.

    Args:
        logits: FP32 [vocabulary], without NaN; the largest one is finite.
        token: the token's id.
        num_top: how many of the most probable tokens to return; all if the vocabulary has fewer.
    """
    # The logarithm of a token's probability is its logit minus `base`, the logarithm of the sum of exp(logit). The
    # largest logit is taken out of the sum, so that exp does not overflow.
    peak = logits.max()
    weights = np.exp(logits - peak)
    base = float(peak) + float(np.log(weights.sum(dtype=np.float64)))
    top = _top(logits, weights, num_top) if num_top else ()
    return float(logits[token]) - base, tuple((int(each), float(logits[each]) - base) for each in top)


def _top(logits: NDArray[np.float32], weights: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The `count` tokens with the largest of `logits`, FP32 [vocabulary], the largest first (of equal ones, the first).
    `weights` are exp(logit - the largest logit).
    """
    for threshold in _THRESHOLDS:
        tokens = np.flatnonzero(weights > threshold)
        if len(tokens) >= count:
            break
    else:
        # Fewer than `count` tokens have a weight that is not 0 in FP32, so all tokens are sorted.
        tokens = np.arange(len(logits))
    return tokens[np.argsort(-logits[tokens], kind="stable")][:count]
