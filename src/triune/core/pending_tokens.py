"""Tokens that a decoder chooses while its host already prepares the next step."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class PendingTokens(Protocol):
    """The most probable tokens of a step that has begun (`core.decoder.DecoderExecutable.begin`)."""

    def read(self) -> NDArray[np.int64]:
        """Wait until the step is computed. May be called again; then it does not wait.

        Returns:
            INT64 [n]: for each of the step's `logits_indices` what `core.decoder.best_tokens` finds.

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
