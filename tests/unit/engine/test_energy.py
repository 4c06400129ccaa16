"""Steps of the engine are charged to their sequences by tokens, prompts and answers apart."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from support.energy_meters import rail
from support.scripted import EOS, VOCAB, ScriptedDecoder
from triune.core.clock import VirtualClock
from triune.core.decoder import DecoderStep
from triune.core.energy import EnergyKind, Phase
from triune.core.units import Unit
from triune.engine.core import EngineCore
from triune.engine.moving.state import KeysAndValues
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.scheduler import SchedulerLimits
from triune.engine.sequence import Ending, Sequence
from triune.hardware.energy.hand import HandMeter
from triune.hardware.energy.ledger import EnergyLedger

MS = 1_000_000
PREFILL, DECODE = (Phase.PREFILL, EnergyKind.MEASURED), (Phase.DECODE, EnergyKind.MEASURED)


class SlowDecoder(ScriptedDecoder):
    """A step takes 10 ms, in which the machine uses 1 J."""

    def __init__(self, clock: VirtualClock, feed: Callable[[float], None], *, num_blocks: int = 64) -> None:
        super().__init__(b"answer", num_blocks=num_blocks)
        self.clock, self.feed = clock, feed

    def run(self, step: DecoderStep) -> NDArray[np.float32]:
        self.clock.advance(10 * MS)
        self.feed(1.0)
        return super().run(step)


class Bench:
    def __init__(self, *, step_tokens: int = 512, num_blocks: int = 64) -> None:
        self.clock = VirtualClock()
        self.meter = HandMeter([rail("cpu")], self.clock)
        self.ledger = EnergyLedger(self.meter)
        self.account = self.ledger.account("m", 1, Unit.CPU)
        self.decoder = SlowDecoder(self.clock, lambda joules: self.meter.feed("cpu", joules), num_blocks=num_blocks)
        limits = SchedulerLimits(step_tokens=step_tokens)
        self.core = EngineCore(self.decoder, VOCAB, self.clock, limits, account=self.account)

    def add(self, num_prompt: int, num_tokens: int) -> Sequence:
        prompt = [100 + place % 20 for place in range(num_prompt)]
        return self.core.add(prompt, SamplingParameters(temperature=0), Ending(num_tokens, frozenset({EOS})))

    def run(self) -> None:
        while not self.core.is_idle:
            self.core.step()
            self.ledger.sample()
            self.ledger.check()


def test_a_prompt_is_prefill_and_an_answer_decode() -> None:
    bench = Bench()
    sequence = bench.add(6, 4)
    bench.run()
    # One step reads the prompt and gives the first token; three more give the others.
    assert bench.account.joules == {PREFILL: pytest.approx(1.0), DECODE: pytest.approx(3.0)}
    assert sequence.bill is not None
    assert sequence.bill.joules == bench.account.joules


def test_a_step_with_both_is_shared_by_tokens() -> None:
    bench = Bench()
    first = bench.add(3, 2)
    bench.core.step()
    bench.ledger.sample()
    second = bench.add(9, 1)
    bench.run()
    assert first.bill is not None
    assert second.bill is not None
    assert first.bill.joules == {PREFILL: pytest.approx(1.0), DECODE: pytest.approx(0.1)}
    assert second.bill.joules == {PREFILL: pytest.approx(0.9)}
    assert bench.account.joules == {PREFILL: pytest.approx(1.9), DECODE: pytest.approx(0.1)}


def test_a_prompt_in_pieces_is_prefill_step_by_step() -> None:
    bench = Bench(step_tokens=4)
    bench.add(10, 1)
    bench.run()
    assert bench.account.joules == {PREFILL: pytest.approx(3.0)}


def test_a_step_that_fails_is_charged_and_ended() -> None:
    bench = Bench()
    bench.add(3, 2)
    bench.decoder.failure = RuntimeError("a defect")
    bench.run()
    assert bench.account.joules == {PREFILL: pytest.approx(1.0)}
    bench.clock.advance(100 * MS)
    bench.meter.feed("cpu", 5.0)
    bench.ledger.sample()
    assert bench.account.joules == {PREFILL: pytest.approx(1.0)}


def test_all_sequences_together_pay_what_the_model_used() -> None:
    bench = Bench(step_tokens=8, num_blocks=7)
    sequences = [bench.add(5 + 3 * place, 6) for place in range(4)]
    bench.run()
    assert sum(each.num_preemptions for each in sequences), "the test wants some to be computed twice"
    for key in (PREFILL, DECODE):
        paid = sum(each.bill.joules.get(key, 0.0) for each in sequences if each.bill is not None)
        assert paid == pytest.approx(bench.account.joules[key])
    (status,) = bench.ledger.rails
    assert status.totals.charged == pytest.approx(len(bench.decoder.steps))
    assert status.totals.idle == pytest.approx(0.0, abs=1e-9)


def test_a_core_without_an_account_has_no_bills() -> None:
    core = EngineCore(ScriptedDecoder(b"answer"), VOCAB, VirtualClock())
    sequence = core.add([100], SamplingParameters(temperature=0), Ending(1))
    core.step()
    assert sequence.bill is None


def test_an_answer_that_moves_has_one_bill_and_each_unit_its_account(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Bench()
    account = here.ledger.account("m", 1, Unit.AMX)
    there = EngineCore(here.decoder, VOCAB, here.clock, SchedulerLimits(), account=account)
    before = here.add(8, 5)
    while before.num_answered < 2:
        here.core.step()
        here.ledger.sample()
    monkeypatch.setattr(here.decoder, "read_tokens", lambda blocks, num_tokens: [])
    state = replace(here.core.export(before), cached=KeysAndValues())
    after = there.resume(state, before=before)
    assert after.bill is before.bill
    assert after.started_ns == before.started_ns
    while not there.is_idle:
        there.step()
        here.ledger.sample()
    here.ledger.check()
    assert before.bill is not None
    spent = here.account.totals(), account.totals()
    assert all(sum(each.values()) > 0 for each in spent)
    for key in (PREFILL, DECODE):
        assert before.bill.joules[key] == pytest.approx(sum(each.get(key, 0.0) for each in spent))
