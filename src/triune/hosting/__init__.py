"""Executables in processes of their own: for libraries that hold the GIL, and for foreign code.

`HostedExecutable` is an `Executable` like any other, so a `ThreadWorker` with one is the process worker. Tensors cross
in shared memory; what crosses the socket beside them is a few hundred bytes. When the process dies, the request under
way gets an error that says so, and the process is started again. `run_in_process` is for what is done once.
"""

from triune.hosting.executable import HostedExecutable
from triune.hosting.limits import APART, Limits
from triune.hosting.process import MemoryLimitError, WorkerEndedError, WorkerProcess
from triune.hosting.restrict import restrict_memory
from triune.hosting.run_in_process import run_in_process
from triune.hosting.watched import kill_all

__all__ = [
    "APART",
    "HostedExecutable",
    "Limits",
    "MemoryLimitError",
    "WorkerEndedError",
    "WorkerProcess",
    "kill_all",
    "restrict_memory",
    "run_in_process",
]
