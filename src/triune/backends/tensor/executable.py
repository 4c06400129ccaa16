"""An executable that survives a reload of its model, if its recipe is unchanged."""

import threading
from collections.abc import Mapping, Sequence

from triune.config.placement import Recipe
from triune.core.datatypes import Array
from triune.core.runtime import Executable
from triune.hosting import HostedExecutable


class SharedExecutable:
    """A reference-counted executable: the last `close` frees it.

    During a reload the old, draining dispatcher and the new one may share an executable; a lock lets one of them run it
    at a time. An uncontended lock costs less than 0.1 microseconds.

    Attributes:
        recipe: the recipe that it was compiled from.
        is_hosted: it runs in another process, and a call may have to wait until that is restarted.
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
        """Add a reference, whose owner calls `close` once. The count must not be 0."""
        with self._lock:
            self._num_holders += 1
        return self

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """As `Executable.run`; concurrent calls run one at a time."""
        with self._lock:
            return self._executable.run(inputs, outputs)

    def interrupt(self) -> None:
        """As `Executable.interrupt`, whichever holder's run it is."""
        self._executable.interrupt()

    def close(self) -> None:
        """Drop a reference; the last one frees the executable."""
        with self._lock:
            self._num_holders -= 1
            is_last = self._num_holders == 0
        if is_last:
            self._executable.close()
