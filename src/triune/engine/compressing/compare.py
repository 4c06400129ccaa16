"""Measure how much the predictions of a decoder with compressed weights differ from those of its source on text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from triune.compression.accuracy import TextAccuracy
from triune.engine.compressing.graph import TextGraph

_EACH: Final = 4
"""The probabilities of the whole vocabulary are compared after every fourth token only, since they take memory: 200 kB
a token for a vocabulary of 50,000.
"""

_AT_ONCE: Final = 32
"""After how many tokens the logits are reduced at once: 6 MB for a vocabulary of 50,000."""


@dataclass(frozen=True, slots=True, eq=False)
class _Predictions:
    """A model's predictions after each token of a text.

    Attributes:
        losses: FP64 [tokens - 1], -log p of each next token.
        best: INT64 [tokens], the most probable next token.
        logs: FP32 [tokens / _EACH, vocabulary], log p of all tokens of the vocabulary, after every `_EACH`-th token of
            the text.
        is_finite: whether no logit is NaN or infinite.
    """

    losses: NDArray[np.float64]
    best: NDArray[np.int64]
    logs: NDArray[np.float32]
    is_finite: bool


class TextComparison:
    """The predictions of a decoder on texts, with which predictions with other weights are compared."""

    def __init__(self, graph: TextGraph, texts: Sequence[Sequence[int]]) -> None:
        """Compute the predictions of the graph with its present weights. Each text has at least two tokens."""
        self._graph = graph
        self._texts = texts
        self._expected: Final = [_predicted(*each) for each in zip(graph.logits(texts), texts, strict=True)]

    @property
    def is_finite(self) -> bool:
        """Whether all logits of the source are numbers."""
        return all(each.is_finite for each in self._expected)

    def accuracy(self) -> TextAccuracy:
        """Compare the predictions of the graph with its present weights to those that it made first, with the source's
        weights.
        """
        found = [_predicted(*each) for each in zip(self._graph.logits(self._texts), self._texts, strict=True)]
        same = [one.best == other.best for one, other in zip(self._expected, found, strict=True)]
        divergences = [_divergence(one.logs, other.logs) for one, other in zip(self._expected, found, strict=True)]
        return TextAccuracy(
            num_tokens=sum(len(each.losses) for each in found),
            perplexity_before=_perplexity(self._expected),
            perplexity=_perplexity(found),
            top1=float(np.concatenate(same).mean()),
            divergence=float(np.concatenate(divergences).mean()),
            is_finite=all(each.is_finite for each in found),
        )


def _predicted(logits: NDArray[np.float32], tokens: Sequence[int]) -> _Predictions:
    parts = [logits[begin : begin + _AT_ONCE] for begin in range(0, len(logits), _AT_ONCE)]
    is_finite = all(bool(np.isfinite(part).all()) for part in parts)
    totals = np.concatenate([_totals(part) for part in parts])
    losses = totals[:-1] - logits[np.arange(len(tokens) - 1), np.asarray(tokens[1:])]
    logs = logits[::_EACH] - totals[::_EACH, np.newaxis].astype(np.float32)
    return _Predictions(losses, logits.argmax(axis=1), logs, is_finite)


def _totals(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """The logarithm of the sum of exp(logit) after each token, FP64 [tokens]. The logarithm of a token's probability is
    its logit minus that.
    """
    peaks = logits.max(axis=1)
    # The largest logit is taken out of the sum, so that exp does not overflow.
    return np.log(np.exp(logits - peaks[:, np.newaxis]).sum(axis=1, dtype=np.float64)) + peaks


def _perplexity(texts: Sequence[_Predictions]) -> float:
    """The perplexity, exp(-mean(log p)), where p is the probability of each next token; infinite if it exceeds FP64."""
    with np.errstate(over="ignore"):
        return float(np.exp(np.concatenate([each.losses for each in texts]).mean()))


def _divergence(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """The Kullback-Leibler divergence sum(p (log p - log q)) at each token, FP64 [tokens], of log p and log q, FP32
    [tokens, vocabulary].
    """
    return np.maximum((np.exp(one) * (one - other)).sum(axis=1, dtype=np.float64), 0)
