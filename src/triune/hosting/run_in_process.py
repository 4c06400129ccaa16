"""Run a function once, in a new process."""

from collections.abc import Callable

from triune.hosting.limits import Limits
from triune.hosting.process import WorkerProcess


def run_in_process(work: Callable[[], object], name: str, limits: Limits | None = None) -> None:
    """Call `work` in a new process, and wait for it. Its return value is dropped.

    The new process has ended when this function returns or raises. It also ends if this process does.

    Args:
        work: the function. It is pickled.
        name: the name of the work in messages, such as "the conversion of 'model.onnx'".
        limits: `load_seconds`, which includes the start of the process, `memory_bytes` and `cpu_seconds` apply.

    Raises:
        TriuneError: the error that `work` raised.
        InternalError: the process ended early, or could not be started.
        MemoryLimitError: the process exceeded the memory limit.
        UnavailableError: the process exceeded the time limit.
    """
    process = WorkerProcess(name, limits or Limits())
    try:
        process.work(work)
    finally:
        process.kill()
        process.free()
