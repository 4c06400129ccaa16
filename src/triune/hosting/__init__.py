"""Worker processes: executables in separate processes, for libraries that hold the GIL and for code that may crash.

`HostedExecutable` is an `Executable`, so that a `ThreadWorker` can own it. Tensors pass through shared memory; a socket
carries a message of a few hundred bytes. If the process dies, the running request gets an error that says so, and the
process is restarted. `run_in_process` runs a function once.
"""

from triune.hosting.executable import HostedExecutable
from triune.hosting.limits import FAULT_LIMITS, Limits
from triune.hosting.process import MemoryLimitError, WorkerEndedError, WorkerProcess
from triune.hosting.restrict import restrict_memory
from triune.hosting.run_in_process import run_in_process
from triune.hosting.watched import kill_all, leave_nothing

__all__ = [
    "FAULT_LIMITS",
    "HostedExecutable",
    "Limits",
    "MemoryLimitError",
    "WorkerEndedError",
    "WorkerProcess",
    "kill_all",
    "leave_nothing",
    "restrict_memory",
    "run_in_process",
]
