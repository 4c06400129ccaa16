"""Meters a machine's energy while a server or an engine runs."""

import contextlib
from collections.abc import Generator, Sequence

from triune.core.clock import MonotonicClock
from triune.hardware.cpu import read_cpu
from triune.hardware.energy.accountant import INTERVAL_SECONDS, EnergyAccountant
from triune.hardware.energy.detect import HasPresence, this_machines_meter
from triune.hardware.energy.ledger import EnergyLedger


@contextlib.contextmanager
def metered(units: Sequence[HasPresence], interval_seconds: float = INTERVAL_SECONDS) -> Generator[EnergyLedger | None]:
    """A context in which a thread reads the machine's meters of energy.

    Args:
        units: the machine's units.
        interval_seconds: the time between two readings. With 0 nothing is metered, and the context yields None.
    """
    if not interval_seconds:
        yield None
        return
    meter = this_machines_meter(units, read_cpu().name, MonotonicClock())
    with contextlib.closing(EnergyAccountant(meter, interval_seconds)) as accountant:
        yield accountant.ledger
