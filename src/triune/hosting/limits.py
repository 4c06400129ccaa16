"""Limits of a worker process: time, memory and restarts."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a worker process, which either holds an executable and runs it, or calls one function.

    Attributes:
        load_seconds: the time from the start of the process until the executable is loaded, or the function has
            returned.
        memory_bytes: the private memory of a load or of one function call, with the processes that it starts; beyond it
            the process is killed. None sets no limit.
        cpu_seconds: the CPU time of one function call, over all cores; beyond it the system kills the process. None
            sets no limit.
        run_bytes: the private memory that one run may take in addition to what the loaded executable takes. Allocations
            beyond it fail; on systems that cannot enforce that, the process is killed. None sets no limit.
        run_seconds: the time of one run; beyond it the process is killed and restarted. None sets no limit.
        stopped_seconds: how long a signal (SIGSTOP) may stop the process; beyond that it is killed and restarted.
        close_seconds: the time for a clean exit; beyond it the process is killed.
        delays_seconds: the delays before a restart, after the first failure in a row, the second, and so on. A failure
            is an exit without any answer, or a failed load.
        rest_seconds: how long no restart is tried after more failures in a row than there are delays. The first request
            after that time causes one more try.
    """

    load_seconds: float = 3600.0
    memory_bytes: int | None = None
    cpu_seconds: int | None = None
    run_bytes: int | None = None
    run_seconds: float | None = None
    stopped_seconds: float = 5.0
    close_seconds: float = 5.0
    delays_seconds: tuple[float, ...] = (0.0, 0.2, 1.0, 5.0)
    rest_seconds: float = 60.0


FAULT_LIMITS: Final = Limits(rest_seconds=5.0)
"""The limits of a correct model whose process some requests can crash: after failures it is soon restarted."""
