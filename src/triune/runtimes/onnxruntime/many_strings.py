"""Requests of many strings in a process of their own: no other thread runs while ONNX Runtime copies strings."""

from collections.abc import Callable, Mapping, Sequence

from triune.core.datatypes import Array, DataType
from triune.core.runtime import Executable
from triune.hosting import APART, HostedExecutable

MANY_STRINGS = 16 << 10
"""ONNX Runtime takes a millisecond to copy so many."""


class ManyStringsApart:
    """An executable whose requests of more than `MANY_STRINGS` strings run in a second one, in a process.

    The process starts with the first such request, which waits for it; the model is in memory twice from then on.
    """

    def __init__(self, inner: Executable, load: Callable[[], Executable], name: str) -> None:
        """Args:
        inner: runs all other requests.
        load: as `HostedExecutable` has it.
        name: likewise.
        """
        self.signature = inner.signature
        self.unit = inner.unit
        self.precision = inner.precision
        self.is_steady = inner.is_steady
        self._inner = inner
        self._load = load
        self._name = name
        self._hosted: HostedExecutable | None = None
        self._running: Executable = inner

    @property
    def is_apart(self) -> bool:
        """Whether the process was needed yet."""
        return self._hosted is not None

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """See `Executable`.

        Raises:
            InternalError: as `HostedExecutable` does.
            UnavailableError: likewise.
        """
        self._running = self._inner
        if sum(array.size for array in inputs.values() if array.dtype.hasobject) > MANY_STRINGS:
            if self._hosted is None:
                self._hosted = HostedExecutable(self._load, self._name, limits=APART)
            self._running = self._hosted
        return self._running.run(inputs, outputs)

    def interrupt(self) -> None:
        """See `Executable`."""
        self._running.interrupt()

    def close(self) -> None:
        """See `Executable`."""
        self._inner.close()
        if self._hosted is not None:
            self._hosted.close()


def many_strings_apart(executable: Executable, load: Callable[[], Executable], name: str) -> Executable:
    """`executable` itself where it takes no strings, or runs in a process already; else a `ManyStringsApart`."""
    takes_strings = any(spec.datatype is DataType.BYTES for spec in executable.signature.inputs)
    if not takes_strings or isinstance(executable, HostedExecutable):
        return executable
    return ManyStringsApart(executable, load, name)
