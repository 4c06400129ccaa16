"""Determine how many tokens of texts an encoder computes in a step, so that other clients need not wait for long."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from triune.core.units import Unit

STEP_NS: Final = 100_000_000
"""The duration of a step, in ns, that is aimed at while requests share the model: a short request has to wait for the
running step. The step still has at least MIN_TOKENS and at most MAX_TOKENS tokens.
"""

MIN_TOKENS: Final = 256
"""The tokens of the shortest step. Fewer tokens would take longer per token, since threads synchronize after every
operation.
"""

MAX_TOKENS: Final = 1024
"""The tokens of the longest step. More tokens would make no runtime faster, and take more memory."""

_SHARED_STEPS: Final = 32
"""After a request has arrived while another one was computed, the next 32 steps are kept as short as if several
requests shared them, since further requests are likely to arrive.
"""

_FIRST_TOKENS: Final = 512
"""The number of tokens of a step until the first step has been measured."""

_WEIGHT: Final = 0.2
"""The weight of the newest step in the moving average."""


class StepSize:
    """The number of tokens of a step: the maximum while there is only one request; otherwise it depends on the measured
    speed of the slowest unit. Any thread may record and read.
    """

    def __init__(self, units: Iterable[Unit]) -> None:
        """Args:
        units: the units that compute.
        """
        self._token_ns = dict.fromkeys(units, 0.0)
        self._num_shared = 0

    def share(self) -> None:
        """Note that a request came while another one was under way."""
        self._num_shared = _SHARED_STEPS

    def record(self, unit: Unit, num_tokens: int, duration_ns: int) -> None:
        """Record that `unit` computed `num_tokens`. Small numbers are ignored, since the fixed time of a run would
        count as time per token.
        """
        if num_tokens < MIN_TOKENS // 2:
            return
        token_ns, before = duration_ns / num_tokens, self._token_ns[unit]
        self._num_shared = max(0, self._num_shared - 1)
        self._token_ns[unit] = before + _WEIGHT * (token_ns - before) if before else token_ns

    def num_tokens(self) -> int:
        """The largest number of tokens of a step, where each text counts as long as the longest text of the step. A
        single longer text is allowed.
        """
        if not self._num_shared:
            return MAX_TOKENS
        slowest = max(self._token_ns.values())
        return min(max(int(STEP_NS / slowest), MIN_TOKENS), MAX_TOKENS) if slowest else _FIRST_TOKENS


def steps_of(lengths: Sequence[int], step_tokens: Callable[[], int], most: int | None = None) -> Iterator[list[int]]:
    """Group texts of similar length into steps. Yields the positions of the texts of each step.

    Args:
        lengths: the number of tokens of each text.
        step_tokens: called before each step; returns the largest number of tokens of the step, where each text counts
            as long as the longest text of the step. A text with more tokens gets a step of its own.
        most: the largest number of texts of a step; None for no limit.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    begin = 0
    while begin < len(order):
        count = max(1, min(step_tokens() // lengths[order[begin]], most or len(order)))
        yield order[begin : begin + count]
        begin += count
