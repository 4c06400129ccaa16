"""Whatever models do in whatever order: nobody waits while there is room, and every turn ends."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from support.examples import examples
from triune.arbiter.arbiter import Arbiter
from triune.arbiter.pool import PATIENCE_NS, Turn
from triune.arbiter.share import Share
from triune.core.clock import VirtualClock
from triune.core.units import Unit

UNITS = [Unit.CPU, Unit.AMX]


class Models(RuleBasedStateMachine):
    """Up to five models, each served on both units that share the cores."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.arbiter = Arbiter(self.clock)
        self.shares: list[Share] = []
        self.turns: list[tuple[Share, Turn]] = []
        self.woken: set[int] = set()

    @precondition(lambda self: len(self.shares) < 5)
    @rule(weight=st.sampled_from([1.0, 1.0, 0.5]))
    def join(self, weight: float) -> None:
        number = len(self.shares)
        shares = self.arbiter.join(f"{number}", UNITS, lambda: self.woken.add(number), weight)
        assert shares[Unit.CPU] is shares[Unit.AMX]
        self.shares.append(shares[Unit.CPU])

    @precondition(lambda self: self.shares)
    @rule(data=st.data(), unit=st.sampled_from(UNITS), expected_ms=st.sampled_from([0, 1, 10, 300]))
    def start(self, data: st.DataObject, unit: Unit, expected_ms: int) -> None:
        number = data.draw(st.integers(0, len(self.shares) - 1))
        share = self.shares[number]
        granted = share._granted
        is_beside_for_less = granted is not None and granted.is_beside and expected_ms * 1e6 > granted.expected_ns
        self.woken.discard(number)
        turn = share.start(unit, expected_ms * 1e6)
        if turn is not None:
            self.turns.append((share, turn))
            assert not share.is_waiting
        else:
            assert share.is_waiting
            assert granted is None or is_beside_for_less, "whose turn has come starts, unless for a shorter batch"

    @precondition(lambda self: self.turns)
    @rule(data=st.data(), has_more=st.booleans())
    def end(self, data: st.DataObject, has_more: bool) -> None:
        share, turn = self.turns.pop(data.draw(st.integers(0, len(self.turns) - 1)))
        share.end(turn, 1e6, 2e6 if has_more else None)

    @precondition(lambda self: self.shares)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        share = data.draw(st.sampled_from(self.shares))
        share.withdraw()
        assert not share.is_waiting
        assert not share.has_turn

    @rule(elapsed_ms=st.sampled_from([1, 20, 700]))
    def pass_time(self, elapsed_ms: int) -> None:
        self.clock.advance(elapsed_ms * 1_000_000)

    @invariant()
    def nobody_waits_while_there_is_room(self) -> None:
        for pool in self.arbiter.pools.values():
            assert not (pool.waiting and not pool.running)
            assert {id(each) for each in pool.waiting} == {id(each) for each in self.shares if each.is_waiting}
            assert sum(each.num_batches for each in pool.running) == len(self.turns)
            assert sum(each.is_beside for each in pool.running) <= 1

    def teardown(self) -> None:
        for share, turn in self.turns:
            share.end(turn, 1e6)
        for _ in self.shares:
            for share in self.shares:
                if share.has_turn:
                    turn = share.start(Unit.CPU, 0)
                    assert turn is not None
                    share.end(turn, 1e6)
        self.clock.advance(PATIENCE_NS)
        for share in self.shares:
            assert not share.is_waiting, "all others have ended, so that its turn has come"
            share.close()
        for pool in self.arbiter.pools.values():
            assert not pool.running
            assert not pool.shares


TestModels = Models.TestCase
TestModels.settings = examples(100, stateful_step_count=30)
