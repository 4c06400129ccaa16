"""The most probable tokens of a step, which MLX may still be computing, and the next step's tokens, which are made from
them.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from triune.core.datatypes import Array
from triune.core.decoder import NO_TOKEN
from triune.metal.library import Value, fused, mx


class MlxTokens:
    """The tokens of a step (`PendingTokens`).

    Attributes:
        value: INT32 [n or more], which MLX may still be computing.
    """

    def __init__(self, value: Value, read: Callable[[Value], Array], count: int) -> None:
        """Args:
        value: INT32 [n or more].
        read: a function that waits for a value of the decoder, and copies it.
        count: the number n of the step's tokens; later elements do not belong to the step.
        """
        self._read, self._count = read, count
        self._tokens: NDArray[np.int64] | None = None
        self.value = value

    def read(self) -> NDArray[np.int64]:
        """Implements `PendingTokens.read`."""
        if self._tokens is None:
            self._tokens = self._read(self.value)[: self._count].astype(np.int64)
        return self._tokens


def most_probable(logits: Value) -> Value:
    """The most probable token of each row, as in `core.decoder.best_tokens`."""
    if not logits.shape[0]:
        return mx.zeros(0, dtype=mx.int32)
    # Look for NaN separately: MLX does not define the result of `argmax` and `max` for NaN.
    is_usable = mx.isfinite(mx.max(logits, axis=1)) & ~mx.any(mx.isnan(logits), axis=1)
    return mx.where(is_usable, mx.argmax(logits, axis=1).astype(mx.int32), NO_TOKEN)


@fused
def _chosen(ids: Value, sources: Value, tokens: Value) -> Value:
    """For each row: its token id in `ids` if `sources` is negative, else its token in `tokens`, with 0 for NO_TOKEN."""
    return mx.where(sources < 0, ids, mx.maximum(tokens, 0))


def with_tokens(ids: Value, sources: Value, before: Value) -> Value:
    """Token ids INT32 [tokens]. Each one with `sources` >= 0 is replaced by that row of `before`: see
    `DecoderStep.sources`.
    """
    return _chosen(ids, sources, mx.take(before, mx.maximum(sources, 0), 0))
