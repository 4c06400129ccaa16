"""Rules by which the logits themselves determine which tokens may follow in an answer."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class TokenRules(Protocol):
    """Applies rules to one answer. Used by the engine's thread; other threads may read it after the answer has
    ended.
    """

    def allowed(self, logits: NDArray[np.float32]) -> NDArray[np.bool_]:
        """The tokens that may come next, BOOL [vocabulary], chosen by their logits, FP32 [vocabulary], which are not
        changed.
        """
        ...

    def accept(self, token: int) -> None:
        """Record the token that was chosen among the allowed ones."""
        ...
