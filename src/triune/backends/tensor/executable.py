"""An executable that a reload of its model reuses if its recipe is unchanged."""

import threading
from collections.abc import Mapping, Sequence

from triune.config.placement import Recipe
from triune.core.datatypes import Array
from triune.core.runtime import Executable
from triune.hosting import HostedExecutable
from triune.runtimes.cache_holds import let_go


class SharedExecutable:
    """A reference-counted executable: the last `close` frees it.

    During a reload the old dispatcher, which finishes its requests, and the new one may share an executable. A lock
    lets only one of them run it at a time; if nobody else holds it, the lock costs less than 0.1 microseconds.

    Attributes:
        recipe: the recipe that it was compiled from.
        is_hosted: whether it runs in another process, so that a call may have to wait until that is restarted.
    """

    def __init__(self, executable: Executable, recipe: Recipe) -> None:
        """Wrap `executable`, with a reference count of 1."""
        self.recipe = recipe
        self.signature = executable.signature
        self.unit = executable.unit
        self.precision = executable.precision
        self.is_steady = executable.is_steady
        self.is_hosted = isinstance(executable, HostedExecutable)
        self._executable = executable
        self._num_holders = 1
        self._lock = threading.Lock()

    def hold(self) -> "SharedExecutable":
        """Add a reference. Its owner must call `close` once. The count must not be 0."""
        with self._lock:
            self._num_holders += 1
        return self

    @property
    def report(self) -> str:
        """The library's report of where it computes: see `Executable.report`."""
        with self._lock:
            return self._executable.report

    def process_bytes(self) -> int:
        """The memory of its process, in bytes; 0 if it has none."""
        return self._executable.process_bytes() if isinstance(self._executable, HostedExecutable) else 0

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute outputs, as `Executable.run` does. Concurrent calls run one after the other."""
        # Call `acquire` and `release`, which take half the time of a with statement: each request of a small model runs
        # this.
        self._lock.acquire()
        try:
            return self._executable.run(inputs, outputs)
        finally:
            self._lock.release()

    def interrupt(self) -> None:
        """Ask the running `run` to end soon, whoever called it."""
        self._executable.interrupt()

    def close(self) -> None:
        """Drop a reference; the last one frees the executable."""
        with self._lock:
            self._num_holders -= 1
            is_last = self._num_holders == 0
        if is_last:
            self._executable.close()
            let_go(self)
