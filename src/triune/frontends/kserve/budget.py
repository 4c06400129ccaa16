"""The memory that requests under way may take together: as they come, decoded, waiting, and as answers not yet read."""

from types import TracebackType

import psutil

from triune.core.errors import PayloadTooLargeError, UnavailableError
from triune.core.heap import HEAP, LARGE_BYTES

REQUEST_BYTES = 8192
"""What the smallest request takes while it waits: its objects here, and those of its connection."""

_SHARE_OF_MEMORY = 4
_MIN_BYTES = 256 << 20


def default_limit_bytes() -> int:
    """A quarter of what this machine, or the container, has: models and their runs need the rest."""
    return max(_MIN_BYTES, psutil.virtual_memory().total // _SHARE_OF_MEMORY)


class MemoryBudget:
    """Counts what requests take, and refuses what would be too much. For the event loop's thread alone.

    State law: `reserved_bytes` is the sum of what the reservations hold that are not released.

    Attributes:
        limit_bytes: what all requests may take together.
        reserved_bytes: what they take.
    """

    __slots__ = ("limit_bytes", "reserved_bytes")

    def __init__(self, limit_bytes: int | None = None) -> None:
        """None takes the machine's default."""
        self.limit_bytes = default_limit_bytes() if limit_bytes is None else limit_bytes
        self.reserved_bytes = 0

    def reserve(self, num_bytes: int = 0) -> "Reservation":
        """Take so much. Raises as `Reservation.resize` does."""
        reservation = Reservation(self)
        reservation.resize(num_bytes)
        return reservation


class Reservation:
    """What one request takes. Release it however the request ends; as a context manager it does that itself.

    Attributes:
        num_bytes: how much it is now.
    """

    __slots__ = ("_budget", "num_bytes")

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self.num_bytes = 0

    def resize(self, num_bytes: int) -> None:
        """Hold so much from now on, more or less than before.

        Raises:
            UnavailableError: others hold too much for that. What was held stays held.
            PayloadTooLargeError: it would be too much for an idle server.
        """
        budget = self._budget
        more = num_bytes - self.num_bytes
        if more > 0 and budget.reserved_bytes + more > budget.limit_bytes:
            if num_bytes > budget.limit_bytes:
                raise PayloadTooLargeError(
                    f"the request takes {num_bytes} bytes of memory, with its answer; all requests together may take "
                    f"{budget.limit_bytes}: ask for less at once, as binary data, or raise --max-inflight-bytes"
                )
            raise UnavailableError(
                f"the server is full: requests under way take {budget.reserved_bytes} of {budget.limit_bytes} bytes, "
                f"and this one needs {more} more; try again later, or raise --max-inflight-bytes"
            )
        budget.reserved_bytes += more
        self.num_bytes = num_bytes

    def grow(self, more_bytes: int) -> None:
        """Hold so much more. Raises as `resize` does."""
        self.resize(self.num_bytes + more_bytes)

    def release(self) -> None:
        """Give all of it back. May be called again."""
        if self.num_bytes >= LARGE_BYTES:
            HEAP.give_back_soon()
        self._budget.reserved_bytes -= self.num_bytes
        self.num_bytes = 0

    def __enter__(self) -> "Reservation":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()
