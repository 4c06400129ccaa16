"""Tracks how much of a request has arrived, and enforces the limits on heads, trailers, chunks and time."""

from triune.frontends.limits import Limits


class Progress:
    """The progress of the request that a connection is receiving.

    Attributes:
        is_in_head: whether a part of its head is missing.
    """

    __slots__ = (
        "_deadline",
        "_has_grown",
        "_limits",
        "_num_chunks",
        "_num_pieces",
        "_num_seen",
        "_num_silent_bytes",
        "is_in_head",
    )

    def __init__(self, limits: Limits) -> None:
        self.is_in_head = False
        self._limits = limits
        self._has_grown = False
        self._num_silent_bytes = 0
        self._num_chunks = 0
        self._num_pieces = 0
        self._num_seen = 0
        self._deadline = 0.0

    def begin(self) -> None:
        """Start again for a new request, which begins with its head."""
        self.is_in_head = True
        self._num_silent_bytes = 0
        # Begin at -1, so that the empty chunk that ends a body is not counted.
        self._num_chunks = -1
        self._deadline = 0.0

    def grow(self) -> None:
        """Record that a piece of the body has arrived."""
        self._has_grown = True
        self._num_pieces += 1
        self._num_silent_bytes = 0

    def begin_chunk(self) -> bool:
        """Record that a chunk of the body begins. Returns whether the number of chunks is within the limit."""
        self._num_chunks += 1
        return self._num_chunks <= self._limits.chunks

    def read(self, num_bytes: int, now: float) -> bool:
        """Record that bytes of the request were read.

        Args:
            num_bytes: the number of bytes.
            now: the event loop's time, in seconds.

        Returns:
            whether the bytes that arrived since the last piece of the body are few enough to be a head or trailers.
        """
        if not self._deadline:
            self._deadline = now + self._limits.receive_seconds
        if self._has_grown:
            self._has_grown = False
            return True
        self._num_silent_bytes += num_bytes
        return self._num_silent_bytes <= self._limits.head_bytes

    def is_late(self, now: float, num_direct: int | None, *, is_paused: bool) -> bool:
        """Whether the head, or the next piece of the body, has taken too long. Called several times a second.

        Args:
            now: the event loop's time, in seconds.
            num_direct: how many bytes of the body a `BodyReceiver` has received; None if none receives it.
            is_paused: whether the server itself has paused reading: the client is not late then.
        """
        num_received = self._num_pieces if num_direct is None else num_direct
        if num_received != self._num_seen or is_paused:
            self._num_seen = num_received
            self._deadline = now + self._limits.receive_seconds
            return False
        return now >= self._deadline
