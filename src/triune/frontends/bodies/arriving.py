"""Collect a body that arrives in pieces, and never copy a large one as a whole, which would block the event loop."""

import numpy as np

from triune.frontends.bodies.compression import Body

_MOVED_BYTES = 1 << 20
"""Up to this size, in bytes, the memory for a body grows as pieces arrive. The body is copied each time it grows, which
takes a fraction of a millisecond.
"""


class ArrivingBody:
    """Collects the pieces of a body in contiguous memory.

    For a body of more than a megabyte, memory for the largest possible body is reserved. The system allocates each page
    of it only when the page is written.

    Attributes:
        num_bytes: how many bytes have arrived.
    """

    def __init__(self, max_bytes: int) -> None:
        """Args:
        max_bytes: the size of the body, or the largest that it may have.
        """
        self.num_bytes = 0
        self._max_bytes = max_bytes
        self._small = bytearray()
        self._memory: memoryview | None = None

    def add(self, piece: Body) -> None:
        """Append a piece. The body must not become larger than `max_bytes`.

        Raises:
            MemoryError: the system refuses to reserve the memory.
        """
        end = self.num_bytes + len(piece)
        if self._memory is None and end > _MOVED_BYTES:
            self._memory = np.empty(self._max_bytes, np.uint8).data
            self._memory[: self.num_bytes] = self._small
            self._small = bytearray()
        if self._memory is None:
            self._small += piece
        else:
            self._memory[self.num_bytes : end] = piece
        self.num_bytes = end

    def whole(self) -> Body:
        """The whole body. `add` must not be called afterwards."""
        return self._small if self._memory is None else self._memory[: self.num_bytes].toreadonly()
