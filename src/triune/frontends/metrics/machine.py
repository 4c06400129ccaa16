"""The machine's processor and memory, as Triton's nv_cpu_* metrics tell them."""

import time
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Reading:
    """What the machine was doing.

    Attributes:
        utilization: the share of the processor that was busy since the reading before, 0 to 1; None if no time passed.
        total_bytes: the machine's memory.
        used_bytes: what of it a new process could not have.
    """

    utilization: float | None
    total_bytes: int
    used_bytes: int


class MachineMeter:
    """Reads the machine, at most once in an interval: who asks more often gets the same reading."""

    def __init__(self, interval_seconds: float) -> None:
        """Args:
        interval_seconds: how old a reading may be; 0 reads each time.
        """
        self._interval_seconds = interval_seconds
        self._busy_seconds, self._total_seconds = _read()
        self._reading: Reading | None = None
        self._read_at = 0.0

    def read(self) -> Reading:
        """The newest reading."""
        now = time.monotonic()
        if self._reading is None or now - self._read_at >= self._interval_seconds:
            memory = psutil.virtual_memory()
            self._reading = Reading(self._utilization(), memory.total, memory.total - memory.available)
            self._read_at = now
        return self._reading

    def _utilization(self) -> float | None:
        busy_seconds, total_seconds = _read()
        busy = busy_seconds - self._busy_seconds
        total = total_seconds - self._total_seconds
        self._busy_seconds, self._total_seconds = busy_seconds, total_seconds
        return min(1.0, max(0.0, busy / total)) if total > 0 else None


def _read() -> tuple[float, float]:
    times = psutil.cpu_times()._asdict()
    # Linux counts a guest's time under `user` and `nice` too.
    total = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)
    return total - times["idle"] - times.get("iowait", 0.0), total
