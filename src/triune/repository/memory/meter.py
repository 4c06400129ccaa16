"""How much a load has added to the memory of the process."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from triune.core.heap import HEAP
from triune.hardware.memory import own_bytes


def settled_bytes() -> int:
    """The memory of this process, without what it has freed."""
    HEAP.give_back()
    return own_bytes()


@dataclass(frozen=True, slots=True)
class Mark:
    """The state at the start of a load.

    Attributes:
        num_bytes: the memory of the process.
        num_begun: how many loads had begun, this one among them.
        is_alone: whether no other load was under way.
    """

    num_bytes: int
    num_begun: int
    is_alone: bool


class LoadMeter:
    """Measures loads that no other load overlaps: of several at once, nobody can tell whose memory is whose. May be
    called from any thread.
    """

    def __init__(self, read_bytes: Callable[[], int] = settled_bytes) -> None:
        """Args:
        read_bytes: reads the memory of the process.
        """
        self._read_bytes = read_bytes
        self._lock = threading.Lock()
        self._num_begun = self._num_running = 0

    def begin(self) -> Mark:
        """Begin to measure a load. `end` or `leave` must follow."""
        with self._lock:
            self._num_begun += 1
            self._num_running += 1
            number, is_alone = self._num_begun, self._num_running == 1
        return Mark(self._read_bytes() if is_alone else 0, number, is_alone)

    def end(self, mark: Mark) -> int | None:
        """The bytes that the load has added; None if another load overlapped it."""
        num_bytes = self._read_bytes() if self._is_alone(mark) else 0
        is_alone = self._is_alone(mark)
        self.leave()
        return max(0, num_bytes - mark.num_bytes) if is_alone else None

    def leave(self) -> None:
        """End a load that failed."""
        with self._lock:
            self._num_running -= 1

    def _is_alone(self, mark: Mark) -> bool:
        with self._lock:
            return mark.is_alone and self._num_begun == mark.num_begun
