"""How long a worker process may take, and how often it may fail."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Limits:
    """What a worker process is allowed.

    Attributes:
        load_seconds: from its start until its executable is ready, or its one piece of work is done.
        memory_bytes: for one piece of work, not counting what it shares; then it is ended. None sets no limit.
        cpu_seconds: for one piece of work, on all cores together; the system then ends it. None sets no limit.
        run_bytes: the memory that one call may take beside what it found, not counting what is shared: what asks for
            more is refused; where the system does not hold the process to it, it is ended. None sets no limit.
        run_seconds: for one call; then it is killed, and started again. None sets no limit.
        stopped_seconds: how long it may stay stopped, as by SIGSTOP; then it is killed, and started again.
        close_seconds: for an orderly end; then it is killed.
        delays_seconds: before it is started again, after the first failure in a row, the second, and so on. A failure
            is an end without any answer given, or a load that failed. One more failure than there are delays, and it
            is given up.
        rest_seconds: how long it stays given up. The first request after that has it tried once more.
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


APART: Final = Limits(rest_seconds=5.0)
"""Of a model that is well itself, and whose process requests can end: it is not given up for long."""
