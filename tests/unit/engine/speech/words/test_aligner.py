"""The time that words' times take is charged to the model, and to the request that asks for its cost."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from support.energy_meters import rail
from triune.core.clock import VirtualClock
from triune.core.datatypes import Array
from triune.core.energy import Bill, EnergyKind, Phase
from triune.core.tensors import Signature
from triune.core.units import Unit
from triune.engine.speech.tokens import SpeechTokens
from triune.engine.speech.words.aligner import Aligner
from triune.hardware.energy.hand import HandMeter
from triune.hardware.energy.ledger import EnergyLedger

MS = 1_000_000
ENCODE = (Phase.ENCODE, EnergyKind.MEASURED)
SPECIAL = SpeechTokens(10, 11, 12, 13, 14, 15, 16, 17, {})


class Looking:
    """The graph of the alignment: takes 30 ms, and each token looks at the next frame."""

    unit, precision, is_steady, report, signature = Unit.CPU, "fp32", False, "", Signature((), ())

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        self.clock.advance(30 * MS)
        count = inputs["input_ids"].shape[1]
        scores = np.broadcast_to(np.eye(count, 50, dtype=np.float32), (1, count, 50))
        return {"scores": scores, "probabilities": np.full((1, count), 0.5, np.float32)}

    def interrupt(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize("has_bills", [True, False])
def test_the_reading_of_a_text_is_charged(*, has_bills: bool) -> None:
    clock = VirtualClock()
    meter = HandMeter([rail("cpu")], clock)
    ledger = EnergyLedger(meter)
    account = ledger.account("whisper", 1, Unit.CPU)
    aligner = Aligner(lambda: Looking(clock), SPECIAL, lambda: [b" go", b" on"])
    aligner.charge(account, clock)
    bills: list[Bill] = []
    words = aligner.words({}, [0, 1], "en", translates=False, seconds=1, bills=bills if has_bills else None)
    assert [each.text for each in words] == [" go", " on"]
    clock.advance(70 * MS)
    meter.feed("cpu", 1.0)
    ledger.sample()
    ledger.check()
    # Of the 100 ms that took one joule, 30 were its.
    assert account.joules == {ENCODE: pytest.approx(0.3)}
    assert [each.joules for each in bills] == [{ENCODE: pytest.approx(0.3)}] * has_bills
    aligner.close()
