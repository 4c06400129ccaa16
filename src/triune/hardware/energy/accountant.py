"""The accountant: a thread that reads the meter at an interval, and earlier if a caller waits until the energy of
ended works is charged.
"""

import asyncio
import logging
import threading
from typing import Final

from triune.core.threads import start_thread
from triune.hardware.energy.ledger import EnergyLedger
from triune.hardware.energy.meter import EnergyMeter

_log = logging.getLogger(__name__)

INTERVAL_SECONDS: Final = 0.1
"""The time between two readings of the meter, in seconds."""

_SHORTEST_SECONDS: Final = 0.001
"""The shortest time between two readings, in seconds, so that the thread leaves time to other threads."""

_IDLE_SECONDS: Final = 1.0
"""The time between two readings, in seconds, while no rail is available."""

_SETTLE_SECONDS: Final = 2.0
"""How long, in seconds, a request that asks for its joules, or a server that stops, waits for a reading of the meter.
"""


class EnergyAccountant:
    """Owns a meter, its ledger, and the thread that reads the meter for the ledger.

    Attributes:
        ledger: the ledger, which makes accounts and charges them.
    """

    def __init__(self, meter: EnergyMeter, interval_seconds: float = INTERVAL_SECONDS) -> None:
        """Start the thread.

        Args:
            meter: the meter to read. `close` closes it.
            interval_seconds: the time between two readings, above 0. The actual interval is at least the meter's
                resolution, and at least a second while no rail can be read.

        Raises:
            NoThreadError: the system cannot start a thread. The caller still owns the meter then.
        """
        self.ledger = EnergyLedger(meter, self)
        self._meter = meter
        self._interval = max(interval_seconds, meter.resolution_seconds, _SHORTEST_SECONDS)
        self._wakes = threading.Condition()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._is_closed = False
        self._thread = start_thread(self._work, "triune-energy")

    async def settle(self) -> bool:
        """Wait until the energy of every ended `Work` is charged. This takes at most the meter's resolution and the
        time of a reading.

        Returns:
            False if the meter does not answer within two seconds, or is closed.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._wakes:
            if self._is_closed:
                return False
            self._waiting.append((loop, future))
            self._wakes.notify()
        try:
            await asyncio.wait_for(future, _SETTLE_SECONDS)
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """End the thread, then close the meter. If a reading of the meter hangs, the thread does not end within two
        seconds, and the meter stays open. May be called again.
        """
        with self._wakes:
            self._is_closed = True
            self._wakes.notify()
        self._thread.join(_SETTLE_SECONDS)
        if not self._thread.is_alive():
            self._meter.close()

    def _work(self) -> None:
        while True:
            waiting, is_closed = self._await_turn()
            try:
                self.ledger.sample()
            except Exception:  # noqa: BLE001 - a defect must not end the metering, nor keep requests waiting
                _log.exception("energy could not be divided; that of this interval is lost")
            for loop, future in waiting:
                try:
                    loop.call_soon_threadsafe(_resolve, future)
                except RuntimeError:
                    # Skip a caller whose event loop is closed: it does not wait any more.
                    continue
            if is_closed:
                return

    def _await_turn(self) -> tuple[list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]], bool]:
        """Wait until the next reading of the meter is due: after the interval, or if a caller waits, after the meter's
        resolution.

        Returns:
            the callers that wait, and whether this is the last reading.
        """
        with self._wakes:
            # Wait for the meter's resolution in any case: two readings that are closer together could show the same
            # counters.
            self._wakes.wait_for(lambda: self._is_closed, timeout=self._meter.resolution_seconds)
            has_any = any(not each.reason for each in self.ledger.rails)
            rest = (self._interval if has_any else _IDLE_SECONDS) - self._meter.resolution_seconds
            self._wakes.wait_for(lambda: self._is_closed or bool(self._waiting), timeout=rest)
            waiting, self._waiting = self._waiting, []
            return waiting, self._is_closed


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
