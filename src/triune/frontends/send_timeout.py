"""The send timeout: connections are closed if the client has stopped reading."""

import asyncio


class SendTimeout:
    """Measures for how long a client has read nothing of the response that is being written to it."""

    def __init__(self, limit_seconds: float) -> None:
        """Args:
        limit_seconds: how long a client may read nothing.
        """
        self._limit_seconds = limit_seconds
        self._num_unsent: int | None = None
        self._deadline = 0.0

    def is_overdue(self, is_paused: bool, transport: asyncio.Transport, now: float) -> bool:
        """Whether the client has read nothing for `limit_seconds`. Called several times a second.

        Args:
            is_paused: whether writing is paused, because the write buffer of the transport is full.
            transport: the client's connection.
            now: the event loop's time, in seconds.
        """
        num_unsent = transport.get_write_buffer_size() if is_paused else None
        if num_unsent is None or num_unsent != self._num_unsent:
            self._num_unsent = num_unsent
            self._deadline = now + self._limit_seconds
            return False
        return now >= self._deadline
