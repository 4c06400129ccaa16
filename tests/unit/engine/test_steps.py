"""Steps that begin before the last one's tokens are read: which ones do, and what a token too many costs."""

from typing import Any

import numpy as np
import pytest

from support.scripted import EOS, VOCAB, ScriptedDecoder
from triune.core.clock import VirtualClock
from triune.core.decoder import DecoderStep
from triune.core.energy import Account, Work
from triune.core.errors import InternalError
from triune.core.pending_tokens import PendingTokens
from triune.core.units import Unit
from triune.engine.core import EngineCore
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.scheduler import SchedulerLimits
from triune.engine.sequence import Ending, FinishReason, Sequence
from triune.engine.speculation.ngram import NgramProposer

GREEDY = SamplingParameters(temperature=0)


class Ahead(ScriptedDecoder):
    """Computes each step when it begins, and lets the next one begin before its tokens are read.

    Attributes:
        sources: of each step, which rows of the step before its tokens are; None where all are known.
    """

    can_run_ahead = True

    def __init__(self, script: Any = b"abcdefgh", **options: int) -> None:
        super().__init__(script, **options)
        self.sources: list[list[int] | None] = []

    def begin(self, step: DecoderStep, before: PendingTokens | None = None) -> PendingTokens:
        self.sources.append(None if step.sources is None else step.sources.tolist())
        return super().begin(step, before)


def engine_of(decoder: Ahead, **options: Any) -> EngineCore:
    return EngineCore(decoder, VOCAB, VirtualClock(), SchedulerLimits(sequences=3), **options)


def add(engine: EngineCore, num_prompt: int, max_tokens: int, **options: Any) -> Sequence:
    parameters = options.pop("parameters", GREEDY)
    return engine.add([1] * num_prompt, parameters, Ending(max_tokens, frozenset({EOS})), **options)


def run(engine: EngineCore) -> list[Sequence]:
    """The sequences of all tokens, in their order."""
    found: list[Sequence] = []
    while not engine.is_idle:
        found += [sequence for sequence, _ in engine.step()]
        engine.check()
    return found


def test_the_last_token_that_is_asked_for_is_followed_by_no_step() -> None:
    decoder = Ahead()
    engine = engine_of(decoder)
    sequence = add(engine, 2, 3)
    assert run(engine) == [sequence] * 3
    assert decoder.sources == [None, [0], [0]]
    assert bytes(sequence.tokens[2:]) == b"cde"


def test_a_token_behind_the_end_is_dropped_and_charged_to_nobody() -> None:
    decoder = Ahead(lambda position: EOS if position == 4 else 97 + position)
    works: list[Work] = []

    class Accountant:
        record = staticmethod(works.append)

    engine = engine_of(decoder, account=Account("m", 1, Unit.CPU, Accountant()))  # type: ignore[arg-type]
    ending, going = add(engine, 3, 9), add(engine, 1, 9)
    given = run(engine)
    assert given.count(ending) == 2
    assert ending.finish_reason is FinishReason.STOP
    assert going.finish_reason is FinishReason.STOP
    # Each ended by a stop token while one token more of it was computed.
    assert decoder.sources[2] == [0, 1]
    charged = [[share.bill for share in work.parts()] for work in works]
    assert sum(ending.bill in bills for bills in charged) == 2
    assert sum(going.bill in bills for bills in charged) == given.count(going)
    assert all(work.ended_ns >= work.started_ns for work in works)


def test_one_that_arrives_joins_the_step_that_begins_ahead() -> None:
    decoder = Ahead()
    engine = engine_of(decoder)
    first = add(engine, 1, 8)
    engine.step()
    second = add(engine, 3, 2)
    assert [sequence for sequence, _ in engine.step()] == [first]
    assert decoder.sources[-1] == [0, -1, -1, -1]
    assert [sequence for sequence, _ in engine.step()] == [first, second]
    run(engine)
    assert bytes(second.tokens[3:]) == b"de"


@pytest.mark.parametrize("kind", ["logits", "guesses"])
def test_what_needs_more_than_tokens_is_computed_step_by_step(kind: str) -> None:
    decoder = Ahead()
    engine = engine_of(decoder, proposer=NgramProposer() if kind == "guesses" else None)
    parameters = SamplingParameters(temperature=0, num_logprobs=1) if kind == "logits" else GREEDY
    sequence = add(engine, 2, 4, parameters=parameters)
    run(engine)
    assert bytes(sequence.tokens[2:]) == b"cdef"
    assert not any(decoder.sources)


def test_a_step_that_fails_when_it_begins_ahead_costs_the_one_before_nothing() -> None:
    decoder = Ahead()
    engine = engine_of(decoder)
    sequence = add(engine, 2, 4)
    engine.step()
    decoder.failure = InternalError("no more power")
    assert [sample is None for _, sample in engine.step()] == [False]
    assert engine.step() == [(sequence, None)]
    assert sequence.error is decoder.failure
    assert sequence.num_answered == 2
    engine.check()


def test_without_blocks_for_a_step_ahead_the_least_urgent_gives_up_its_own() -> None:
    decoder = Ahead(num_blocks=4, block_size=2)
    engine = engine_of(decoder)
    first, second = add(engine, 2, 6), add(engine, 2, 6, priority=1)
    run(engine)
    assert second.num_preemptions > 0
    for sequence in (first, second):
        assert bytes(sequence.tokens[2:]) == b"cdefgh"


def test_a_sequence_that_is_taken_out_while_it_is_computed_has_the_tokens_that_were_read() -> None:
    decoder = Ahead()
    engine = engine_of(decoder)
    sequence = add(engine, 2, 8)
    engine.step()
    engine.cancel(sequence)
    assert engine.is_idle
    assert engine.pool.num_used == 0
    assert sequence.num_answered == 1
    again = add(engine, 2, 2)
    assert run(engine) == [again] * 2
    assert np.array_equal(decoder.steps[-1].past_lengths, [2])
