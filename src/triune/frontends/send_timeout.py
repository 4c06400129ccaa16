"""Clients that take nothing of what is written to them."""

import asyncio


class SendTimeout:
    """How long a client has taken nothing of its answers."""

    def __init__(self, limit_seconds: float) -> None:
        """Args:
        limit_seconds: how long it may.
        """
        self._limit_seconds = limit_seconds
        self._num_unsent: int | None = None
        self._deadline = 0.0

    def is_overdue(self, is_paused: bool, transport: asyncio.Transport, now: float) -> bool:
        """Whether the client is too slow. Called several times a second.

        Args:
            is_paused: more is written than the client takes.
            transport: where it is written.
            now: the loop's time, in seconds.
        """
        num_unsent = transport.get_write_buffer_size() if is_paused else None
        if num_unsent is None or num_unsent != self._num_unsent:
            self._num_unsent = num_unsent
            self._deadline = now + self._limit_seconds
            return False
        return now >= self._deadline
