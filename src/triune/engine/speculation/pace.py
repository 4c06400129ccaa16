"""Decide how many tokens to guess, from the cost of one more token in a step, and from how often guesses were right."""

import math
from typing import Final

MAX_DRAFTS: Final = 16
"""The most tokens that are guessed for a sequence in a step."""

_FIRST_RATE: Final = 0.6
_FIRST_WEIGHT: Final = 2.0
"""The weight of the initial estimate `_FIRST_RATE`, as a number of checked guesses."""

_LEAST_RATE: Final = 0.1
"""The lowest probability of a guess that is made, however cheap guesses are."""

_MARGIN: Final = 1.2
"""A guess must be this number of times as probable as needed, since costs and probabilities are estimates."""

_KEPT_STEP: Final = 0.98
"""The weight of a step's time is multiplied by this with each later step."""

_FORGOTTEN: Final = 1.01
"""For each number of tokens, the shortest time of a step is kept. Each further step of as many tokens multiplies it by
this, so that it rises if steps have become slower for good.
"""

_NEW_GUESS: Final = 0.25
"""The weight of the latest guesses in the mean of the time that making a guess takes."""

_KEPT_GUESS: Final = 0.99
"""The assumed cost of guesses is multiplied by this after each step without guesses, so that they are tried again."""

_MAX_TOKENS: Final = 128
"""Only the times of steps with at most this many tokens are recorded."""

_MOST_WEIGHT: Final = 8.0
"""The largest total weight of the checked guesses that `Accuracy` remembers: earlier ones fade, so that a change in the
text is noticed soon.
"""

_KEPT_IDLE: Final = 0.97
"""The weight of earlier checks is multiplied by this after a step without guesses, so that a sequence whose guesses
failed tries again later.
"""


class Accuracy:
    """Estimates how often the guesses for one sequence are right."""

    def __init__(self) -> None:
        self._num_right = 0.0
        self._num_checked = 0.0

    @property
    def rate(self) -> float:
        """The probability that the next guess is right, if all before it were."""
        return (self._num_right + _FIRST_RATE * _FIRST_WEIGHT) / (self._num_checked + _FIRST_WEIGHT)

    def observe(self, num_right: int, num_guessed: int) -> None:
        """Count the guesses of a step. Those after the first wrong one were not checked."""
        self._num_right += num_right
        self._num_checked += min(num_right + 1, num_guessed)
        scale = min(1.0, _MOST_WEIGHT / self._num_checked)
        self._num_right *= scale
        self._num_checked *= scale

    def rest(self) -> None:
        """Count a step in which nothing was guessed, since guesses were not worth it."""
        self._num_right *= _KEPT_IDLE
        self._num_checked *= _KEPT_IDLE

    def num_worth(self, least_rate: float) -> int:
        """How many tokens to guess for the next step.

        A guess is right only if all guesses before it are right, so the n-th guess is right with probability rate^n.
        The number of guesses is the largest n with rate^n >= `least_rate`, since checking a less probable guess costs
        more than it saves.
        """
        rate = min(self.rate, 0.99)
        if rate <= least_rate:
            return 0
        return min(MAX_DRAFTS, int(math.log(max(least_rate, 1e-9)) / math.log(rate)))


class StepCost:
    """The duration of a step as a linear function: a constant, and an amount for each token.

    For each number of tokens, only the shortest of the latest times of such steps counts, since other work of the
    machine causes longer times. The line is fitted to these shortest times. If all steps have the same number of
    tokens, a token is assumed to cost a fifth of the constant.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._weights: dict[int, float] = {}
        self._guess_seconds: float | None = None

    def observe(self, num_tokens: int, seconds: float) -> None:
        """Record the duration of a step of `num_tokens` tokens, in which each sequence had one token and its guesses.
        Steps of more than _MAX_TOKENS are ignored.
        """
        if num_tokens > _MAX_TOKENS:
            return
        for count in self._weights:
            self._weights[count] *= _KEPT_STEP
        self._weights[num_tokens] = self._weights.get(num_tokens, 0.0) + 1
        known = self._seconds.get(num_tokens, seconds)
        self._seconds[num_tokens] = min(seconds, known * _FORGOTTEN)

    def observe_guesses(self, num_guesses: int, seconds: float) -> None:
        """Record how long making guesses took, apart from the step that checks them; 0 guesses if there were none."""
        if not num_guesses:
            self._guess_seconds = self._guess_seconds and self._guess_seconds * _KEPT_GUESS
            return
        each = seconds / num_guesses
        known = each if self._guess_seconds is None else self._guess_seconds
        self._guess_seconds = known + _NEW_GUESS * (each - known)

    def least_rate(self, num_sequences: int, num_tokens: int) -> float:
        """The least probability of being right at which a guess is worth its cost.

        A guess is worth it if a step gives more tokens a second with it than without it: if its probability is above
        `num_sequences` * (the cost of a token + the cost of its guess) / the cost of the step. The result is this
        number times `_MARGIN`.

        Args:
            num_sequences: the number of sequences that get a token in the step.
            num_tokens: the number of tokens of the step without guesses.
        """
        if not self._seconds:
            return min(_MARGIN * num_sequences / (5 + num_tokens), 1.0)
        slope, seconds = self._line(num_tokens)
        # The line is fitted to noisy measurements. If it gives a time of 0 or less, guess as if guesses cost nothing. A
        # line that falls counts as level.
        if seconds <= 0:
            return _LEAST_RATE
        cost = max(slope, 0.0) + (self._guess_seconds or 0.0)
        return min(max(_MARGIN * num_sequences * cost / seconds, _LEAST_RATE), 1.0)

    def _line(self, num_tokens: int) -> tuple[float, float]:
        """Fit a line to the durations of steps by their numbers of tokens. Returns its slope, in seconds a token, and
        its value in seconds at `num_tokens` tokens.
        """
        points = [(weight, count, self._seconds[count]) for count, weight in self._weights.items()]
        # Add an assumed step, which has 8 tokens more than most steps. Unlike a measured step, which may have been slow
        # by chance, it is never forgotten, so that guesses are tried again.
        _, usual, seconds = max(points)
        points.append((1.0, usual + 8, seconds * (5 + usual + 8) / (5 + usual)))
        whole = sum(weight for weight, _, _ in points)
        mean = sum(weight * count for weight, count, _ in points) / whole
        height = sum(weight * seconds for weight, _, seconds in points) / whole
        spread = sum(weight * (count - mean) ** 2 for weight, count, _ in points)
        rise = sum(weight * (count - mean) * (seconds - height) for weight, count, seconds in points)
        slope = rise / spread if spread > 0 else 0.0
        return slope, height + slope * (num_tokens - mean)
