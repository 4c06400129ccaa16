"""Run requests with many or long strings in a separate process.

ONNX Runtime holds the GIL while it copies strings, and no arena limits the memory that their contents take. A separate
process has a limit for that.
"""

from collections.abc import Callable, Mapping, Sequence

from triune.core.datatypes import Array, DataType
from triune.core.runtime import Executable
from triune.core.sizes import content_bytes
from triune.hosting import HostedExecutable

MANY_STRINGS = 16 << 10
"""The number of strings that ONNX Runtime copies in about a millisecond. Requests with more strings run in a separate
process.
"""

_MANY_BYTES = 64 << 20
"""The largest size of strings, in bytes, that a run may hold in the server's own process."""

_MANY_NUMBERS = 1 << 20
"""The largest number of input elements of a model that may map each to a string, for a run in the server's own process.
It is higher than MANY_STRINGS, since most such models return few strings.
"""


class ManyStringsExecutable:
    """An executable that runs requests with more than MANY_STRINGS strings, or with long ones, in a separate process.

    Once a response had that many strings, requests at least as large as its request run there too. The process starts
    at the first such request, which waits for it. From then on the model is in memory twice.
    """

    def __init__(
        self, inner: Executable, host: Callable[[], HostedExecutable], *, gives_labels: bool, copies: float
    ) -> None:
        """Args:
        inner: the executable for requests with few, short strings; it runs in this process.
        host: makes the executable for requests with many or long strings; it runs in a separate process.
        gives_labels: whether each element of a numeric input may become a string in an output.
        copies: the bytes of strings that a run holds, as a multiple of those in the request (`Growth.copies`).
        """
        self.signature = inner.signature
        self.unit = inner.unit
        self.precision = inner.precision
        self.is_steady = inner.is_steady
        self.report = inner.report
        self._inner = inner
        self._host = host
        self._many_bytes = _MANY_BYTES / max(copies, 1.0)
        self._many_numbers = _MANY_NUMBERS if gives_labels else None
        self._hosted: HostedExecutable | None = None
        self._running: Executable = inner

    @property
    def has_started(self) -> bool:
        """Whether the process was started."""
        return self._hosted is not None

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute outputs: see `Executable.run`.

        Raises:
            InternalError: `HostedExecutable.run` raised it.
            UnavailableError: `HostedExecutable.run` raised it.
        """
        if self._has_many(inputs):
            self._running = self._hosted = self._hosted or self._host()
            return self._running.run(inputs, outputs)
        self._running = self._inner
        answer = self._inner.run(inputs, outputs)
        if self._many_numbers is not None and _num_strings(answer) > MANY_STRINGS:
            self._many_numbers = min(self._many_numbers, _num_elements(inputs) - 1)
        return answer

    def interrupt(self) -> None:
        """Ask the running `run` to end soon."""
        self._running.interrupt()

    def close(self) -> None:
        """Free the executable, and end the process."""
        self._inner.close()
        if self._hosted is not None:
            self._hosted.close()

    def _has_many(self, inputs: Mapping[str, Array]) -> bool:
        num_strings = _num_strings(inputs)
        if num_strings > MANY_STRINGS or (num_strings and sum(map(content_bytes, inputs.values())) > self._many_bytes):
            return True
        return self._many_numbers is not None and _num_elements(inputs) > self._many_numbers


def _num_strings(arrays: Mapping[str, Array]) -> int:
    return sum(each.size for each in arrays.values() if each.dtype.hasobject)


def _num_elements(arrays: Mapping[str, Array]) -> int:
    return sum(each.size for each in arrays.values())


def host_many_strings(
    executable: Executable, host: Callable[[], HostedExecutable], *, gives_labels: bool, copies: float
) -> Executable:
    """Wrap an executable with string inputs or outputs in a `ManyStringsExecutable`; return others unchanged."""
    takes_strings = any(spec.datatype is DataType.BYTES for spec in executable.signature.inputs)
    if not takes_strings and not gives_labels:
        return executable
    return ManyStringsExecutable(executable, host, gives_labels=gives_labels, copies=copies)
