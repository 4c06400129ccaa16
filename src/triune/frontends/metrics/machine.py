"""The machine's processor and memory, as Triton's nv_cpu_* metrics tell them."""

import psutil


class CpuMeter:
    """The share of the processor that was busy between two readings."""

    def __init__(self) -> None:
        self._busy_seconds, self._total_seconds = _read()

    def utilization(self) -> float | None:
        """0 to 1, since the last call (or since this was made); None if no time has passed."""
        busy_seconds, total_seconds = _read()
        busy = busy_seconds - self._busy_seconds
        total = total_seconds - self._total_seconds
        self._busy_seconds, self._total_seconds = busy_seconds, total_seconds
        return min(1.0, max(0.0, busy / total)) if total > 0 else None


def memory_bytes() -> tuple[int, int]:
    """Total and used memory of the machine. Used is what a new process could not have."""
    memory = psutil.virtual_memory()
    return memory.total, memory.total - memory.available


def _read() -> tuple[float, float]:
    times = psutil.cpu_times()._asdict()
    # Linux counts a guest's time under `user` and `nice` too.
    total = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)
    return total - times["idle"] - times.get("iowait", 0.0), total
