"""Work that is done once, in a process that ends with it."""

from collections.abc import Callable

from triune.hosting.limits import Limits
from triune.hosting.process import WorkerProcess


def run_in_process(work: Callable[[], object], name: str, limits: Limits | None = None) -> None:
    """Call `work` in a process of its own, and wait for it. What it returns is dropped.

    However this function is left, the process is gone; it ends with this process, too.

    Args:
        work: pickled, and called in the process.
        name: what messages call it: "the conversion of 'model.onnx'".
        limits: `load_seconds` is how long it may take, the start of the process included; `memory_bytes` and
            `cpu_seconds` hold, too.

    Raises:
        TriuneError: what `work` raised there.
        InternalError: the process ended before the work was done, or could not be started.
        MemoryLimitError: it took more memory than it may.
        UnavailableError: it took too long.
    """
    process = WorkerProcess(name, limits or Limits())
    try:
        process.work(work)
    finally:
        process.kill()
        process.free()
