"""Computes graphs outside the engine's steps, and charges their energy."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from triune.core.clock import Clock
from triune.core.datatypes import Array
from triune.core.energy import Account, Bill, Phase, Share
from triune.core.runtime import Executable

_SHARES: Final = (Share(Phase.ENCODE, 1.0),)


class Meter(NamedTuple):
    """The account to which energy is charged, and the clock that measures the times of the computations."""

    account: Account
    clock: Clock


def computed(
    executable: Executable,
    inputs: Mapping[str, Array],
    outputs: Sequence[str],
    meter: Meter | None,
    bills: list[Bill] | None,
) -> Mapping[str, Array]:
    """Compute outputs of a graph, and return them by name. The energy is charged to the phase `Phase.ENCODE`.

    Args:
        executable: the compiled graph.
        inputs: the graph's inputs, by name.
        outputs: the names of the outputs.
        meter: the account to charge and its clock; None if energy is not metered.
        bills: a `Bill`, to which the joules of this computation are charged, is appended to it; None, or no meter, for
            no bill.

    Raises:
        TriuneError: the runtime failed.
    """
    if meter is None:
        return executable.run(inputs, outputs)
    shares = _SHARES
    if bills is not None:
        bills.append(meter.account.new_bill())
        shares = (Share(Phase.ENCODE, 1.0, bills[-1]),)
    work = meter.account.begin(meter.clock.now_ns(), shares)
    try:
        return executable.run(inputs, outputs)
    finally:
        work.ended_ns = meter.clock.now_ns()
