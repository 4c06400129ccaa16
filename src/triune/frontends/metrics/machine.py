"""Measures the machine's CPU and memory use for Triton's nv_cpu_* metrics."""

import time
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Reading:
    """A measurement of the machine.

    Attributes:
        utilization: the CPU utilization since the previous reading, from 0 to 1; None if no time has passed.
        total_bytes: the machine's memory.
        used_bytes: the memory that is not available to new processes.
    """

    utilization: float | None
    total_bytes: int
    used_bytes: int


class MachineMeter:
    """Measures the machine at most once in an interval. Within it, calls return the same reading."""

    def __init__(self, interval_seconds: float) -> None:
        """Args:
        interval_seconds: the interval; 0 measures at each call.
        """
        self._interval_seconds = interval_seconds
        self._busy_seconds, self._total_seconds = _read()
        self._reading: Reading | None = None
        self._read_at = 0.0

    def read(self) -> Reading:
        """Measure the machine if the interval has passed, and return the newest reading."""
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
    # Do not count guests twice: on Linux, `user` and `nice` include the time of virtual machine guests.
    total = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)
    return total - times["idle"] - times.get("iowait", 0.0), total
