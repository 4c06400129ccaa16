"""The memory budget: a limit for the memory of all requests together, from arrival until the client has the
response.
"""

from types import TracebackType

from triune.core.errors import PayloadTooLargeError, UnavailableError
from triune.core.heap import HEAP, LARGE_BYTES
from triune.hardware.memory import usable_memory

REQUEST_BYTES = 8192
"""The memory of the smallest waiting request, in bytes: its own Python objects and those of its connection."""

_SHARE_OF_MEMORY = 4
_MIN_BYTES = 256 << 20


def default_limit_bytes() -> int:
    """Return a quarter of the memory of this machine or container. The remaining memory is for models and their
    runs.
    """
    return max(_MIN_BYTES, usable_memory().total // _SHARE_OF_MEMORY)


class MemoryBudget:
    """Counts the memory of all requests that are not finished, and refuses more than the limit.

    Use it on the event loop's thread only.

    Invariant: `reserved_bytes` is the sum of `num_bytes` of all reservations that are not released.

    Attributes:
        limit_bytes: the limit for all requests together.
        reserved_bytes: the sum of the current reservations.
    """

    __slots__ = ("_highest_bytes", "limit_bytes", "reserved_bytes")

    def __init__(self, limit_bytes: int | None = None) -> None:
        """Args:
        limit_bytes: the limit; None takes `default_limit_bytes()`.
        """
        self.limit_bytes = default_limit_bytes() if limit_bytes is None else limit_bytes
        self.reserved_bytes = 0
        self._highest_bytes = 0

    def change(self, more_bytes: int) -> None:
        """Add `more_bytes`, which may be negative, to `reserved_bytes`. Only reservations call this.

        Once the sum is 64 MiB (LARGE_BYTES) below its highest value, freed memory is returned to the system.
        """
        self.reserved_bytes += more_bytes
        if self.reserved_bytes > self._highest_bytes:
            self._highest_bytes = self.reserved_bytes
        elif self._highest_bytes - self.reserved_bytes >= LARGE_BYTES:
            self._highest_bytes = self.reserved_bytes
            HEAP.give_back_soon()

    def reserve(self, num_bytes: int = 0) -> "Reservation":
        """Make a reservation of `num_bytes`. Raises the errors of `Reservation.resize`."""
        reservation = Reservation(self)
        reservation.resize(num_bytes)
        return reservation


class Reservation:
    """The memory that is reserved for one request.

    Release it when the request ends, for whatever reason, or use it as a context manager.

    Attributes:
        num_bytes: the reserved size.
    """

    __slots__ = ("_budget", "num_bytes")

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self.num_bytes = 0

    def resize(self, num_bytes: int) -> None:
        """Change the reserved size to `num_bytes`.

        Raises:
            UnavailableError: other requests hold too much. The reservation keeps its old size.
            PayloadTooLargeError: `num_bytes` is more than the whole budget.
        """
        budget = self._budget
        more = num_bytes - self.num_bytes
        if more > 0 and budget.reserved_bytes + more > budget.limit_bytes:
            if num_bytes > budget.limit_bytes:
                raise PayloadTooLargeError(
                    f"the request takes {num_bytes} bytes of memory, with its answer; all requests together may take "
                    f"{budget.limit_bytes}: ask for less at once, as binary data, or raise --max-inflight-bytes"
                )
            # Return the memory of the refused request to the system.
            HEAP.give_back_soon()
            raise UnavailableError(
                f"the server is full: requests under way take {budget.reserved_bytes} of {budget.limit_bytes} bytes, "
                f"and this one needs {more} more; try again later, or raise --max-inflight-bytes"
            )
        budget.change(more)
        self.num_bytes = num_bytes

    def grow(self, more_bytes: int) -> None:
        """Reserve `more_bytes` in addition. Raises the errors of `resize`."""
        self.resize(self.num_bytes + more_bytes)

    def release(self) -> None:
        """Return the memory to the budget. Calling it again does nothing."""
        self._budget.change(-self.num_bytes)
        self.num_bytes = 0

    def __enter__(self) -> "Reservation":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()
