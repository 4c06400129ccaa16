"""The energy of models and requests, in joules: accounts of models, bills of requests, and the works that take the
energy.

A *work* is an interval in which a unit computed a batch or a step of the transformer engine. The energy of the interval
is charged to the model's *account*, and to the *bills* of the requests that asked for their energy. `hardware.energy`
has the meters, and the accountant that divides the metered energy.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol

from triune.core.units import Unit


class EnergyKind(Enum):
    """How a number of joules was determined. UNAVAILABLE means that there is no number."""

    MEASURED = "measured"
    """The joules come from a counter or a sensor of the system."""
    ESTIMATED = "estimated"
    """The joules are the time of the computation multiplied by the watts that a table gives for the unit under load."""

    # Use object's hash: Enum's own hash is a slow Python function (see `Unit`).
    __hash__ = object.__hash__


class Phase(Enum):
    """The phase of a computation that energy is charged to."""

    INFER = "infer"
    """The computation of a batch of a tensor model or of an encoder of texts."""
    PREFILL = "prefill"
    """The computation of the tokens of prompts."""
    DECODE = "decode"
    """The computation of the tokens of answers, including guessed tokens (speculative decoding)."""
    ENCODE = "encode"
    """The computation of a speech model's encoder, whose output the decoder reads."""

    __hash__ = object.__hash__


class Accountant(Protocol):
    """Divides the metered energy among works (`Work`)."""

    def record(self, work: "Work") -> None:
        """Register a work that begins. Any thread may call this; it takes less than a microsecond."""
        ...

    def why_unavailable(self, unit: Unit) -> str:
        """Why the joules of a unit are unavailable now; empty if they are available."""
        ...

    async def settle(self) -> bool:
        """Wait until the energy of every `Work` that has ended is charged.

        Returns:
            False if the meter does not answer.
        """
        ...


@dataclass(eq=False, slots=True)
class Bill:
    """The units that computed one request, and its joules. The accountant's thread adds joules; read them after
    `settle`.

    Attributes:
        joules: the joules by phase and kind; an unknown number has no entry.
        missing: why a part of the joules is unavailable; empty if none is.
        units: the number of rows that each unit computed. Only the event loop's thread changes it.
    """

    joules: dict[tuple[Phase, EnergyKind], float] = field(default_factory=dict[tuple[Phase, EnergyKind], float])
    missing: str = ""
    units: dict[Unit, int] = field(default_factory=dict[Unit, int])
    _accountants: dict[Accountant, None] = field(default_factory=dict[Accountant, None])

    def join(self, accountant: Accountant) -> None:
        """Record that `accountant` charges energy to this bill."""
        self._accountants[accountant] = None

    def ran_on(self, unit: Unit, num_rows: int) -> None:
        """Record that a unit computes rows of the request."""
        self.units[unit] = self.units.get(unit, 0) + num_rows

    def add(self, phase: Phase, kind: EnergyKind, joules: float) -> None:
        """Add joules to a phase of the bill."""
        key = (phase, kind)
        self.joules[key] = self.joules.get(key, 0.0) + joules

    @property
    def accountants(self) -> Collection[Accountant]:
        """The accountants that charge energy to this bill."""
        return self._accountants


async def report_of(bills: Sequence[Bill]) -> dict[str, Any]:
    """The sum of some bills, for the answer to a request that asked for its energy.

    This waits until all ended works are charged, for at most one interval of the meters.

    Returns:
        `kind`: "measured", "estimated" or "unavailable"; and `joules`, with the joules of each phase, such as
            `prefill_joules`, if there are several phases; or the `reason` why they are unavailable.
    """
    accountants = {each for bill in bills for each in bill.accountants}
    if not all(await asyncio.gather(*(each.settle() for each in accountants))):
        return {"kind": "unavailable", "reason": "the energy meter does not answer"}
    missing = next((bill.missing for bill in bills if bill.missing), "")
    entries = [(phase, kind, joules) for bill in bills for (phase, kind), joules in bill.joules.items()]
    if missing or not entries:
        return {"kind": "unavailable", "reason": missing or _NOTHING}
    is_estimated = any(kind is EnergyKind.ESTIMATED for _, kind, _ in entries)
    kind = EnergyKind.ESTIMATED if is_estimated else EnergyKind.MEASURED
    report: dict[str, Any] = {"kind": kind.value, "joules": sum(joules for _, _, joules in entries)}
    phases = dict.fromkeys(phase for phase, _, _ in entries)
    if len(phases) > 1 or Phase.INFER not in phases:
        for each in phases:
            report[f"{each.value}_joules"] = sum(joules for phase, _, joules in entries if phase is each)
    return report


class Share(NamedTuple):
    """A part of the energy of a `Work`.

    Attributes:
        phase: the phase of the computation.
        weight: the fraction of the work's energy, from 0 to 1. The weights of a work's shares add up to 1.
        bill: the bill of the request; None if it did not ask for its energy.
    """

    phase: Phase
    weight: float
    bill: Bill | None = None


_NOTHING: Final = "no metered unit computed for this request"

WHOLE_INFERENCE: Final = (Share(Phase.INFER, 1.0),)
"""The shares of a batch in which no request asked for its energy: one share, which has all of the energy."""


@dataclass(eq=False, slots=True)
class Work:
    """An interval in which a unit computed for a model.

    Attributes:
        account: the model's account on the unit.
        started_ns: when it began, on the accountant's clock.
        shares: how the work is divided among bills. It may be a function that returns this, which the accountant's
            thread calls once, so that the computing thread does not wait for the result.
        ended_ns: when it ended; 0 while it runs. The code that began the work sets this.
        joules: its measured energy, once all of it is charged; None before, and if it cannot be told (see
            `hardware.energy.ledger`). The accountant's thread sets this.
    """

    account: "Account"
    started_ns: int
    shares: Sequence[Share] | Callable[[], Sequence[Share]]
    ended_ns: int = 0
    joules: float | None = None

    def parts(self) -> Sequence[Share]:
        """The shares by which the work's energy is divided among bills. Call this on the accountant's thread only."""
        shares = self.shares() if callable(self.shares) else self.shares
        self.shares = shares
        return shares


@dataclass(eq=False)
class Account:
    """The energy of one version of a model on one unit.

    Attributes:
        model: the model's name.
        version: its version.
        unit: the unit that uses the energy. For an emulated unit this is the CPU.
        accountant: divides the energy.
        joules: the joules by phase and kind, since the version was loaded. Only the accountant's thread changes them.
        quick_ns: the total time of batches that ran without a work of their own. It is used for models whose batches
            are too short and too many to be recorded one by one.
    """

    model: str
    version: int
    unit: Unit
    accountant: Accountant
    joules: dict[tuple[Phase, EnergyKind], float] = field(default_factory=dict[tuple[Phase, EnergyKind], float])
    quick_ns: int = 0

    def begin(self, now_ns: int, shares: Sequence[Share] | Callable[[], Sequence[Share]] = WHOLE_INFERENCE) -> Work:
        """Record that a work begins. The caller sets its `ended_ns` when it ends, also after an error.

        Args:
            now_ns: the time, on the accountant's clock.
            shares: how the work is divided among bills, or a function that returns this later. The bills must have
                joined the accountant, as bills that `new_bill` makes have.
        """
        work = Work(self, now_ns, shares)
        self.accountant.record(work)
        return work

    def new_bill(self) -> Bill:
        """Make a bill that can be charged with a part of this account's energy."""
        bill = Bill()
        bill.join(self.accountant)
        return bill

    def begin_batch(self, now_ns: int, rows: Sequence[tuple[int, Bill | None]]) -> Work:
        """Record that a batch begins, as `begin` does. Each request gets a part of the batch's energy in proportion to
        its rows.

        Args:
            now_ns: the time, on the accountant's clock.
            rows: the number of rows of each request, and its bill if it asked for its energy.
        """
        if all(bill is None for _, bill in rows):
            return self.begin(now_ns)
        total = sum(num_rows for num_rows, _ in rows)
        for _, bill in rows:
            if bill is not None:
                bill.join(self.accountant)
        return self.begin(now_ns, [Share(Phase.INFER, num_rows / total, bill) for num_rows, bill in rows])

    def ran(self, started_ns: int, ended_ns: int, bill: Bill) -> None:
        """Record a batch for which no `Work` was begun (see `quick_ns`), and whose request asked for its energy."""
        self.begin_batch(started_ns, [(1, bill)]).ended_ns = ended_ns

    def add(self, phase: Phase, kind: EnergyKind, joules: float) -> None:
        """Add joules to a phase of the account. Called on the accountant's thread."""
        key = (phase, kind)
        self.joules[key] = self.joules.get(key, 0.0) + joules

    def why_unavailable(self) -> str:
        """Why joules are unavailable now; empty if they are available."""
        return self.accountant.why_unavailable(self.unit)

    def totals(self) -> Mapping[tuple[Phase, EnergyKind], float]:
        """A copy of `joules`, for other threads."""
        return self.joules.copy()
