"""The probabilities of a prompt's own tokens, which steps compute piece by piece."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from triune.engine.sampling.sampler import rank_of, token_logprobs


class PromptScores:
    """The probability of each token of a prompt after those before it.

    Attributes:
        num_read: the number of the prompt's tokens after which the next token's probability is known. The first token
            has no probability, and the last one is followed by the answer: of n tokens, n - 1 have a probability.
        logprobs: FP32 [n - 1], the logarithms of the probabilities of the second token, the third, and so on. It is NaN
            where the model's logits hold NaN, or the largest is infinite.
        ranks: INT32 [n - 1], the places of the same tokens among all tokens by their probability, from 1 on; 0 where
            `logprobs` is NaN.
        top_tokens: INT32 [n - 1, num_top], the most probable tokens at the same positions, the most probable first.
        top_logprobs: FP32 [n - 1, num_top], the logarithms of their probabilities.
    """

    def __init__(self, prompt: Sequence[int], num_top: int) -> None:
        """Args:
        prompt: the prompt's token ids, at least one.
        num_top: how many of the most probable tokens to record for each position.
        """
        self.num_read = 0
        self._prompt = prompt
        count = len(prompt) - 1
        self.logprobs = np.full(count, np.nan, np.float32)
        self.ranks = np.zeros(count, np.int32)
        self.top_tokens = np.zeros((count, num_top), np.int32)
        self.top_logprobs = np.full((count, num_top), np.nan, np.float32)

    @property
    def is_complete(self) -> bool:
        """Whether all tokens but the first have their probability."""
        return self.num_read == len(self._prompt) - 1

    def unread(self, begin: int, end: int) -> range:
        """The positions from `begin` up to `end`, which is not included, whose next token in the prompt has no logprob
        yet. The last token of the prompt has no next one.
        """
        return range(max(begin, self.num_read), min(end, len(self._prompt) - 1))

    def at(self, place: int) -> tuple[float, list[tuple[int, float]]]:
        """The logprob of the token at position `place` (from 1 on), and the most probable tokens there with their
        logprobs; NaN and [] if the logits were invalid.
        """
        logprob = float(self.logprobs[place - 1])
        if np.isnan(logprob):
            return logprob, []
        tokens, logprobs = self.top_tokens[place - 1].tolist(), self.top_logprobs[place - 1].tolist()
        return logprob, list(zip(tokens, logprobs, strict=True))

    def read(self, places: range, logits: NDArray[np.float32]) -> None:
        """Record the logprobs of the tokens after some positions of the prompt.

        Args:
            places: these positions, as returned by `unread`.
            logits: FP32 [places, vocabulary], the logits after each.
        """
        num_top = self.top_tokens.shape[1]
        for place, row in zip(places, logits, strict=True):
            if not np.isfinite(row.max()):
                continue
            logprob, top = token_logprobs(row, self._prompt[place + 1], num_top)
            self.logprobs[place], self.ranks[place] = logprob, rank_of(self._prompt[place + 1], row)
            for rank, (token, each) in enumerate(top):
                self.top_tokens[place, rank], self.top_logprobs[place, rank] = token, each
        self.num_read = places.stop
