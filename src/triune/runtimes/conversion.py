"""A conversion in a process of its own, within what it is allowed."""

import os
from collections.abc import Callable

import psutil

from triune.core.errors import InternalError, UnavailableError
from triune.hosting import Limits, MemoryLimitError, run_in_process

_SPARE_SECONDS = 60

_SHARE_OF_MEMORY = 0.75
"""More, and the system may end the server for it."""


def convert_within(
    work: Callable[[], object], what: str, *, seconds: float, seconds_parameter: str, memory_bytes: int | None
) -> None:
    """Have it done, once.

    Args:
        work: to be pickled.
        what: what messages call it: "the conversion of 'model.onnx'".
        seconds: how long it may take.
        seconds_parameter: the config's parameter that says so.
        memory_bytes: what it may take; None takes three quarters of the machine's.

    Raises:
        TriuneError: what `work` raised.
        InternalError: the process ended before it was done, took too much memory, or could not be started.
        UnavailableError: it took longer than `seconds`, and was ended.
    """
    # A process that its server's end does not reach, since a library holds it, ends by this.
    cpu_seconds = int(seconds * (os.cpu_count() or 1)) + _SPARE_SECONDS
    limit = int(psutil.virtual_memory().total * _SHARE_OF_MEMORY) if memory_bytes is None else memory_bytes
    try:
        run_in_process(work, what, Limits(load_seconds=seconds, memory_bytes=limit, cpu_seconds=cpu_seconds))
    except MemoryLimitError as error:
        raise InternalError(f"{error}; allow it more by --conversion-memory-bytes") from error
    except UnavailableError as error:
        raise UnavailableError(f"{error}; give it more in the config's parameter '{seconds_parameter}'") from error
