"""The state law of the memory budget: what is reserved is the sum of what those under way hold."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from triune.core.errors import PayloadTooLargeError, UnavailableError
from triune.frontends.bodies.budget import MemoryBudget, Reservation

LIMIT = 1000
SIZES = st.integers(0, LIMIT + 200)


class BudgetMachine(RuleBasedStateMachine):
    reservations = Bundle("reservations")

    def __init__(self) -> None:
        super().__init__()
        self.budget = MemoryBudget(LIMIT)
        self.held: dict[int, tuple[Reservation, int]] = {}

    def _try(self, reservation: Reservation, num_bytes: int) -> None:
        others = sum(size for key, (_, size) in self.held.items() if key != id(reservation))
        before = reservation.num_bytes
        if num_bytes <= before or others + num_bytes <= LIMIT:
            reservation.resize(num_bytes)
            self.held[id(reservation)] = (reservation, num_bytes)
            return
        with pytest.raises(PayloadTooLargeError if num_bytes > LIMIT else UnavailableError):
            reservation.resize(num_bytes)
        assert reservation.num_bytes == before

    @rule(target=reservations, num_bytes=SIZES)
    def comes(self, num_bytes: int) -> Reservation:
        reservation = self.budget.reserve()
        self.held[id(reservation)] = (reservation, 0)
        self._try(reservation, num_bytes)
        return reservation

    @rule(reservation=reservations, num_bytes=SIZES)
    def changes(self, reservation: Reservation, num_bytes: int) -> None:
        self._try(reservation, num_bytes)

    @rule(reservation=consumes(reservations), fails=st.booleans())
    def goes(self, reservation: Reservation, fails: bool) -> None:
        try:
            with reservation:
                if fails:
                    raise ConnectionError
        except ConnectionError:
            pass
        reservation.release()
        del self.held[id(reservation)]

    @invariant()
    def law(self) -> None:
        assert self.budget.reserved_bytes == sum(size for _, size in self.held.values())
        assert self.budget.reserved_bytes <= LIMIT


TestBudget = BudgetMachine.TestCase
