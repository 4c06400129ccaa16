"""An executable that outlives a change of its model's configuration."""

import threading
from collections.abc import Mapping, Sequence

from triune.config.placement import Recipe
from triune.core.datatypes import Array
from triune.core.runtime import Executable
from triune.hosting import HostedExecutable


class SharedExecutable:
    """An executable with holders: the last `close` frees it.

    While a model is changed, its old dispatcher, which drains, and its new one may both hold an executable; a lock
    lets one of them run it at a time. Uncontended, that costs less than a tenth of a microsecond.

    Attributes:
        recipe: what it was made from.
        is_hosted: it runs in another process, and a call may wait for that to be started again.
    """

    def __init__(self, executable: Executable, recipe: Recipe) -> None:
        """Holds `executable` once."""
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
        """One more holder, who calls `close` once. Only while another holder exists."""
        with self._lock:
            self._num_holders += 1
        return self

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """As `Executable.run`, one call at a time whoever calls."""
        with self._lock:
            return self._executable.run(inputs, outputs)

    def interrupt(self) -> None:
        """As `Executable.interrupt`, whoever's run it is."""
        self._executable.interrupt()

    def close(self) -> None:
        """One holder less; the last frees the executable."""
        with self._lock:
            self._num_holders -= 1
            is_last = self._num_holders == 0
        if is_last:
            self._executable.close()
