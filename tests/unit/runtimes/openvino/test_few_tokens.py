"""Which of two programs computes a step is decided by how long both take; here their times are the test's own."""

import time
from collections.abc import Callable

import numpy as np
import pytest

from triune.core.decoder import DecoderStep
from triune.runtimes.openvino.few_tokens import MOST_SEQUENCES, most_few_tokens


class Timed:
    """Programs whose steps take as long as they say, by a clock of their own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.steps: list[DecoderStep] = []
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def program(self, seconds: Callable[[int], float]) -> Callable[[DecoderStep], object]:
        """A program that takes so many seconds for a step of so many tokens."""

        def run(step: DecoderStep) -> None:
            step.require_fitting(MOST_SEQUENCES, 16)
            self.steps.append(step)
            self.now += seconds(len(step.input_ids))

        return run


@pytest.mark.parametrize(
    ("seconds", "most"),
    [
        (lambda tokens: 5.5 + tokens, 0),
        (lambda tokens: 1 + 0.9 * tokens, 8),
        (lambda tokens: 1 + 0.9 * tokens if tokens != 2 else 100, 8),
        (lambda tokens: 0.9 * (5 + tokens / 2), None),
        (lambda tokens: 1.0 if tokens <= 64 else 1000.0, 64),
    ],
)
def test_the_most_tokens_are_found(monkeypatch: pytest.MonkeyPatch, seconds, most: int | None) -> None:
    timed = Timed(monkeypatch)
    many = timed.program(lambda tokens: 5 + tokens / 2)
    assert most_few_tokens(timed.program(seconds), many, {}) == most


def test_steps_bring_memory_and_fit_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = Timed(monkeypatch)
    assert most_few_tokens(timed.program(lambda _: 1), timed.program(lambda _: 2), {"sound": 3}) is None
    assert {len(each.input_ids) for each in timed.steps} == {1, 2, 4, 8, 16, 32, 64, 512}
    for step in timed.steps:
        assert step.memory["sound"].shape == (len(step.past_lengths), 1, 3)
        np.testing.assert_array_equal(step.logits_indices, step.subsequence_begins[1:] - 1)
        assert not step.position_ids.any()
