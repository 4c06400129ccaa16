"""What a meter counted is charged or idle, whatever ran when."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.energy_meters import rail
from triune.core.clock import VirtualClock
from triune.core.energy import Account, Bill, Phase, Share, Work
from triune.core.units import Unit
from triune.hardware.energy.hand import HandMeter
from triune.hardware.energy.ledger import EnergyLedger
from triune.hardware.energy.meter import RailRole

MS = 1_000_000

_EVENTS = st.one_of(
    st.tuples(st.just("advance"), st.integers(0, 300)),
    st.tuples(st.just("sample"), st.integers(0, 50)),
    st.tuples(st.just("begin"), st.integers(0, 5)),
    st.tuples(st.just("end"), st.integers(0, 20)),
    st.tuples(st.just("quick"), st.integers(0, 200)),
    st.tuples(st.just("late"), st.integers(1, 300)),
    st.tuples(st.just("lose"), st.just(0)),
    st.tuples(st.just("find"), st.just(0)),
)


@given(st.lists(_EVENTS, max_size=60))
def test_charged_and_idle_add_up_to_what_was_metered(events: Sequence[tuple[str, int]]) -> None:
    clock = VirtualClock()
    gpu = frozenset({Unit.GPU})
    meter = HandMeter([rail("cpu"), rail("gpu", gpu), rail("dram", frozenset(Unit), RailRole.MEMORY)], clock)
    ledger = EnergyLedger(meter)
    accounts = [ledger.account("m", version, unit) for version in (1, 2) for unit in (Unit.CPU, Unit.AMX, Unit.GPU)]
    bills: list[Bill] = []
    works: list[Work] = []
    is_lost = False

    def begin(account: Account, when_ns: int) -> Work:
        bills.append(Bill())
        return account.begin(when_ns, [Share(Phase.PREFILL, 0.25, bills[-1]), Share(Phase.DECODE, 0.75, bills[-1])])

    for what, number in events:
        match what:
            case "advance":
                clock.advance(number * MS)
            case "sample":
                for name in ("cpu", "gpu", "dram"):
                    meter.feed(name, number / 7)
                ledger.sample()
                ledger.check()
            case "begin":
                works.append(begin(accounts[number], clock.now_ns()))
            case "end" if works:
                works.pop(number % len(works)).ended_ns = clock.now_ns()
            case "quick":
                accounts[number % 6].quick_ns += number * MS
            case "late":
                # It is recorded when it has ended already.
                begin(accounts[number % 6], max(0, clock.now_ns() - number * MS)).ended_ns = clock.now_ns()
            case "lose":
                is_lost = is_lost or meter.lose("gpu", "gone") is None
            case "find" if is_lost:
                meter.find("gpu")
                is_lost = False
    clock.advance(MS)
    ledger.sample()
    ledger.check()
    charged = sum(each.totals.charged for each in ledger.rails)
    to_accounts = sum(joules for account in accounts for joules in account.joules.values())
    to_bills = sum(joules for bill in bills for joules in bill.joules.values())
    if not any(what == "lose" for what, _ in events):
        assert to_accounts == pytest.approx(charged, abs=1e-9)
        assert all(not bill.missing for bill in bills)
    assert to_accounts <= charged + 1e-9
    assert to_bills <= to_accounts + 1e-9
    if not any(what == "quick" for what, _ in events):
        assert to_bills == pytest.approx(to_accounts, abs=1e-9)
    assert all(joules >= 0 for account in accounts for joules in account.joules.values())
