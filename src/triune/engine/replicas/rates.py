"""Measure how long the steps of a replica take: when it is loaded, and in each step since."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

_WEIGHT: Final = 0.2
"""The weight of a new measurement in the moving average."""


class Curve:
    """Durations by size, a number of tokens or answers: a moving average for each power of two, with linear
    interpolation between them.
    """

    def __init__(self) -> None:
        self._points: dict[int, tuple[float, float]] = {}

    def __bool__(self) -> bool:
        """Whether anything was measured."""
        return bool(self._points)

    def record(self, size: int, duration_ns: float) -> None:
        """Record a measurement; `size` is 1 or more."""
        key = size.bit_length()
        known = self._points.get(key)
        if known is None:
            self._points[key] = (size, duration_ns)
            return
        self._points[key] = (known[0] + _WEIGHT * (size - known[0]), known[1] + _WEIGHT * (duration_ns - known[1]))

    def of(self, size: float) -> float:
        """The expected duration in nanoseconds; 0 if nothing was measured.

        Below the smallest measured size it is the duration of that size. Above the largest it grows in proportion to
        the size.
        """
        points = sorted(self._points.values())
        if not points:
            return 0.0
        if size <= points[0][0]:
            return points[0][1]
        for (low, low_ns), (high, high_ns) in pairwise(points):
            if size <= high:
                return low_ns + (high_ns - low_ns) * (size - low) / (high - low)
        return points[-1][1] * size / points[-1][0]


@dataclass(slots=True)
class Speeds:
    """The durations of steps, measured in one situation (see `Rates`).

    Attributes:
        prompts: the durations by the number of prompt tokens in a step, without the time for answers in the same step.
        answers: the durations by the number of answers that get a token in the step.
    """

    prompts: Curve = field(default_factory=Curve)
    answers: Curve = field(default_factory=Curve)

    def record(self, num_prompt_tokens: int, num_answers: int, duration_ns: int) -> None:
        """Record the duration of a step that read `num_prompt_tokens` of prompts, and gave a token to `num_answers`
        answers.
        """
        if not num_prompt_tokens:
            if num_answers:
                self.answers.record(num_answers, duration_ns)
            return
        rest = duration_ns - (self.answers.of(num_answers) if num_answers else 0.0)
        share = duration_ns * num_prompt_tokens / (num_prompt_tokens + num_answers)
        self.prompts.record(num_prompt_tokens, rest if rest > 0 else share)


class Rates:
    """The measured speeds of one replica. Units may share cores and memory, so there are two sets of speeds.

    Attributes:
        alone: the speeds while no other replica of the model computes.
        beside: the speeds while another replica computes too.
        out_ns: the time to copy the keys and values of a token out of the replica's cache, in ns.
        in_ns: the time to write the keys and values of a token to the replica's cache, in ns.
    """

    def __init__(self, step_tokens: int) -> None:
        """`step_tokens` is the most tokens of a step."""
        self.alone = Speeds()
        self.beside = Speeds()
        self.out_ns = 0.0
        self.in_ns = 0.0
        self._step_tokens = step_tokens

    def record(self, num_prompt_tokens: int, num_answers: int, duration_ns: int, *, is_beside: bool) -> None:
        """Record how long a step took (`Speeds.record`), in `beside` if `is_beside`, else in `alone`."""
        (self.beside if is_beside else self.alone).record(num_prompt_tokens, num_answers, duration_ns)

    def prompt_ns(self, num_tokens: int, *, is_beside: bool) -> float:
        """The time to read `num_tokens` tokens of prompts, in as many steps as they need, in ns. If `is_beside`, that
        is the time while another replica computes; if it was never measured, the time alone.
        """
        curve = self.beside.prompts if is_beside and self.beside.prompts else self.alone.prompts
        whole, rest = divmod(num_tokens, self._step_tokens)
        return whole * curve.of(self._step_tokens) + (curve.of(rest) if rest else 0.0)

    def answer_ns(self, num_answers: int, *, is_beside: bool) -> float:
        """The time of a step that gives a token to each of `num_answers` answers, in ns. If `is_beside`, that is the
        time while another replica computes; if it was never measured, the time alone.
        """
        curve = self.beside.answers if is_beside and self.beside.answers else self.alone.answers
        return curve.of(num_answers)
