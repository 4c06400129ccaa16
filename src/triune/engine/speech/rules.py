"""Which tokens may follow in a window's text: openai/whisper's logit filters."""

import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from triune.engine.speech.tokens import SECONDS_A_STAMP, SpeechTokens
from triune.engine.weights.config import WhisperConfig

_LATEST_START: Final = round(1.0 / SECONDS_A_STAMP)
"""The first timestamp of a window may be at most 1 s. This is its distance, in timestamp tokens, from the token of
0 s.
"""


class WindowRules:
    """The `TokenRules` of a window's text.

    Attributes:
        logprob: the sum of the log-probabilities of the chosen tokens. Each is the token's probability among the tokens
            that were allowed at that point.
    """

    def __init__(self, config: WhisperConfig, tokens: SpeechTokens, *, has_stamps: bool) -> None:
        """Args:
        config: the model's config, which names the suppressed tokens.
        tokens: the special tokens.
        has_stamps: whether the text has timestamps.
        """
        self._tokens = tokens
        self._has_stamps = has_stamps
        self._suppressed = np.array(sorted({*config.suppress_tokens, *tokens.never_chosen}), np.int64)
        self._at_first = np.array(config.begin_suppress_tokens, np.int64)
        self._chosen: list[int] = []
        self._logprobs: NDArray[np.float32] | None = None
        self.logprob = 0.0

    def allowed(self, logits: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Implements `TokenRules.allowed`."""
        row = logits.astype(np.float32)
        row[self._suppressed] = -np.inf
        if not self._chosen:
            row[self._at_first] = -np.inf
        if self._has_stamps:
            self._follow_stamps(row)
        self._logprobs = row = _log_softmax(row)
        if self._has_stamps:
            first = self._tokens.first_stamp
            # If the total probability of all timestamps exceeds the probability of every single other token, only
            # timestamps are allowed.
            if np.exp(row[first:]).sum() > np.exp(row[:first].max()):
                row[:first] = -np.inf
                self._logprobs = row = _log_softmax(row)
        return row > -np.inf

    def accept(self, token: int) -> None:
        """Implements `TokenRules.accept`."""
        if self._logprobs is not None:
            self.logprob += float(self._logprobs[token])
        self._chosen.append(token)
        self._logprobs = None

    def _follow_stamps(self, row: NDArray[np.float32]) -> None:
        """Mask, in a row of logits [vocabulary], the timestamps that Whisper's order does not allow. Timestamps come in
        pairs (the end of a segment and the beginning of the next), except for the first and the last one, and never
        decrease.
        """
        first, chosen = self._tokens.first_stamp, self._chosen
        if not chosen:
            row[:first] = -np.inf
            row[first + _LATEST_START + 1 :] = -np.inf
            return
        is_stamp = chosen[-1] >= first
        if is_stamp:
            if len(chosen) < 2 or chosen[-2] >= first:
                row[first:] = -np.inf
            else:
                row[: self._tokens.end] = -np.inf
        stamps = [each for each in chosen if each >= first]
        if stamps:
            # Forbid timestamps up to the last one, since a segment must not be empty. The last one itself is allowed if
            # it has just ended a segment: then it may begin the next one.
            is_end = is_stamp and len(chosen) > 1 and chosen[-2] < first
            row[first : stamps[-1] + (0 if is_end else 1)] = -np.inf


class FirstLook:
    """The `TokenRules` of a job that only detects speech and language: the logits after the token that begins a
    transcript show both. The end token alone is allowed, so that the job ends at once.

    Attributes:
        no_speech: the probability that the window has no speech.
        language: the likeliest language; empty for English-only models.
    """

    def __init__(self, tokens: SpeechTokens) -> None:
        self._tokens = tokens
        self.no_speech = 0.0
        self.language = ""

    def allowed(self, logits: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Implements `TokenRules.allowed`."""
        self.no_speech = float(np.exp(_log_softmax(logits)[self._tokens.no_speech]))
        languages = self._tokens.languages
        if languages:
            self.language = max(languages, key=lambda code: float(logits[languages[code]]))
        is_end = np.zeros(len(logits), np.bool_)
        is_end[self._tokens.end] = True
        return is_end

    def accept(self, token: int) -> None:
        """Implements `TokenRules.accept`."""


def compression_ratio(text: str) -> float:
    """The size of a text divided by its size when it is compressed. It is high if the text repeats itself."""
    content = text.encode()
    return len(content) / len(zlib.compress(content))


def mean_logprob(logprob: float, tokens: Sequence[int]) -> float:
    """The mean log-probability of the tokens and the end token; `logprob` is the sum of theirs."""
    return logprob / (len(tokens) + 1)


def _log_softmax(row: NDArray[np.float32]) -> NDArray[np.float32]:
    shifted = row - row.max()
    return shifted - np.log(np.exp(shifted).sum(dtype=np.float64)).astype(np.float32)
