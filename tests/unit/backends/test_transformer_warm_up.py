"""The first steps of a decoder."""

import itertools
import logging
from typing import Any

import numpy as np
import pytest

from contract.decoders.cases import CONFIGS, SeededWeights
from triune.backends.transformer.warm_up import warm_up
from triune.core.clock import VirtualClock
from triune.core.decoder import DecoderStep
from triune.core.pending_tokens import PendingTokens
from triune.engine.models import write_model
from triune.runtimes.reference_decoder import ReferenceDecoder


class Recorded(ReferenceDecoder):
    """Records its steps as (sequences, tokens, whether all sequences have one length), and how many began with tokens
    of the step before.
    """

    can_run_ahead = True

    def __init__(self, num_blocks: int, seconds: int = 0) -> None:
        config = CONFIGS["llama 2"]
        super().__init__(write_model(config, SeededWeights(config), "paged"), num_blocks=num_blocks)
        self.clock, self.seconds = VirtualClock(), seconds
        self.steps: list[tuple[int, int, bool]] = []
        self.num_followed = 0

    def run(self, step: DecoderStep) -> Any:
        self.steps.append((len(step.past_lengths), len(step.input_ids), len(np.unique(step.past_lengths)) == 1))
        self.clock.advance(self.seconds * 10**9)
        return super().run(step)

    def begin(self, step: DecoderStep, before: PendingTokens | None = None) -> PendingTokens:
        self.num_followed += before is not None and step.sources is not None
        return super().begin(step, before)


FIRST = (1, 1, True)


@pytest.mark.parametrize(
    ("num_blocks", "num_tokens", "num_sequences", "steps"),
    [
        (8, 1, 8, [FIRST]),
        (2, 20, 8, [FIRST, (1, 20, True), FIRST]),
        (40, 48, 8, [FIRST, (1, 48, True), FIRST, (8, 8, True), (8, 8, False)]),
        (40, 8, 40, [FIRST, (1, 8, True), FIRST, (8, 8, True), (8, 8, False)]),
        (1, 40, 40, [FIRST, (1, 16, True), FIRST]),
    ],
)
def test_first_steps_fit_the_cache_and_the_limits(num_blocks, num_tokens, num_sequences, steps) -> None:
    decoder = Recorded(num_blocks)
    warm_up(decoder, {}, decoder.clock, name="m", num_tokens=num_tokens, num_sequences=num_sequences)
    assert [step for step, _ in itertools.groupby(decoder.steps)] == steps
    assert decoder.num_followed == sum(sequences == tokens for sequences, tokens, _ in steps[1:])


def test_first_steps_that_take_too_long_end(caplog: pytest.LogCaptureFixture) -> None:
    decoder = Recorded(40, seconds=7)
    with caplog.at_level(logging.INFO):
        warm_up(decoder, {}, decoder.clock, name="m", num_tokens=48, num_sequences=40)
    assert [step for step, _ in itertools.groupby(decoder.steps)] == [FIRST, (1, 48, True), FIRST]
    assert [record.getMessage() for record in caplog.records] == [
        "Model 'm': 2 of 6 first steps took over 30 s",
        "Model 'm': 2 first steps took 35.0 s",
    ]
