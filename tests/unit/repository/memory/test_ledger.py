"""What models are charged with."""

import pytest

from triune.core.errors import InternalError
from triune.repository.memory.ledger import MemoryLedger


def test_charges_are_counted_resized_and_released_once() -> None:
    ledger = MemoryLedger(100, {"the response cache": 10})
    one, two = ledger.charge("a", 30), ledger.charge("a", 20)
    other = ledger.charge("b", 5)
    assert (ledger.used_bytes, ledger.free_bytes, ledger.largest_bytes) == (65, 35, 90)
    assert ledger.by_model() == {"a": 50, "b": 5}
    one.resize(80)
    assert ledger.free_bytes == -15
    other.is_leaving = True
    assert ledger.leaving_bytes == 5
    for each in (one, one, two, other):
        each.release()
    one.resize(7)
    assert (ledger.used_bytes, ledger.leaving_bytes, ledger.by_model()) == (10, 0, {})
    ledger.check()


def test_a_wrong_sum_is_a_defect() -> None:
    ledger = MemoryLedger(100, {})
    ledger.charge("a", 30)
    ledger.used_bytes += 1
    with pytest.raises(InternalError, match="charged with 30 bytes, but 31 are counted"):
        ledger.check()
