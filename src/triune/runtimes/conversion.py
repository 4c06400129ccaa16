"""Run a conversion in a separate process, with limits for time and memory."""

import os
from collections.abc import Callable

from triune.core.errors import InternalError, UnavailableError
from triune.hardware.memory import usable_memory
from triune.hosting import Limits, MemoryLimitError, run_in_process

_SPARE_SECONDS = 60

_SHARE_OF_MEMORY = 0.75
"""The fraction of the machine's memory that a conversion may take by default. If it took more, the system might kill
the server.
"""


def limit_of(memory_bytes: int | None) -> int:
    """The memory limit of a conversion in bytes: `memory_bytes`, or three quarters of the machine's memory if that is
    None.
    """
    return int(usable_memory().total * _SHARE_OF_MEMORY) if memory_bytes is None else memory_bytes


def more_time(parameter: str) -> str:
    """The remedy of `convert_within` for a conversion whose time limit this parameter of the config sets."""
    return f"give it more in the config's parameter '{parameter}'"


def convert_within(
    work: Callable[[], object], what: str, *, seconds: float, remedy: str, memory_bytes: int | None
) -> None:
    """Run a conversion in a separate process, and wait for it.

    Args:
        work: the conversion, which can be pickled.
        what: the name of the conversion in messages, such as "the conversion of 'model.onnx'".
        seconds: the time limit.
        remedy: what to do if the time is not enough, for the message; "" if there is nothing to do.
        memory_bytes: the memory limit; None means three quarters of the machine's memory.

    Raises:
        TriuneError: the error that `work` raised.
        InternalError: the process ended early, exceeded the memory limit, or could not be started.
        UnavailableError: the conversion exceeded the time limit, and was ended.
    """
    # Limit the CPU time too: if the server dies while a library holds the GIL in the conversion's process, that process
    # does not notice it, and the system ends the process at this limit.
    cpu_seconds = int(seconds * (os.cpu_count() or 1)) + _SPARE_SECONDS
    limits = Limits(load_seconds=seconds, memory_bytes=limit_of(memory_bytes), cpu_seconds=cpu_seconds)
    try:
        run_in_process(work, what, limits)
    except MemoryLimitError as error:
        raise InternalError(f"{error}; allow it more by --conversion-memory-bytes") from error
    except UnavailableError as error:
        raise UnavailableError(f"{error}; {remedy}" if remedy else f"{error}") from error
