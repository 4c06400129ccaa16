"""Tokens that a decoder still computes while its caller prepares the next step."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class PendingTokens(Protocol):
    """The most probable tokens of a step that has begun (`core.decoder.DecoderExecutable.begin`)."""

    def read(self) -> NDArray[np.int64]:
        """Wait until the step is computed, and return its tokens. Later calls do not wait.

        Returns:
            INT64 [n]: the result of `core.decoder.best_tokens` for each of the step's `logits_indices`.

        Raises:
            InternalError: the runtime failed.
        """
        ...


@dataclass(frozen=True, slots=True)
class KnownTokens:
    """The tokens of a step that is computed already: `PendingTokens` that need no waiting.

    Attributes:
        tokens: the tokens, INT64 [n].
    """

    tokens: NDArray[np.int64]

    def read(self) -> NDArray[np.int64]:
        """Implements `PendingTokens.read`."""
        return self.tokens
