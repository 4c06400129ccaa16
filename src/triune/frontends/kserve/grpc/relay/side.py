"""Base class of the client's connection and the library's connection."""

import asyncio
import select
import socket
from typing import Final, cast

# macOS has no POLLRDHUP; its poll reports POLLHUP when the other end has closed the connection.
_HUNG_UP: Final[int] = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


class Side(asyncio.BufferedProtocol):
    """One side of a relay: a connection that passes the frames that it receives to its `peer`, the other side."""

    def __init__(self, buffer: memoryview, send_seconds: float, num_unframed_bytes: int) -> None:
        """Args:
        buffer: the buffer for reads. All connections share it, since its bytes are copied before the next read.
        send_seconds: how long a connection that closes may take to send its last bytes.
        num_unframed_bytes: how many bytes precede the first frame.
        """
        self.peer: Side | None = None
        self._loop = asyncio.get_running_loop()
        self._buffer = buffer
        self._send_seconds = send_seconds
        self._num_skipped = num_unframed_bytes
        self._held = b""
        self._num_pauses = 0
        self._aborting: asyncio.TimerHandle | None = None

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended or is about to."""
        return self.transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport of the new connection (see `asyncio.BaseProtocol`)."""
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called when the connection has ended: end the other connection, too."""
        if self._aborting is not None:
            self._aborting.cancel()
        if self.peer is not None:
            self.peer.close()

    def close(self) -> None:
        """Close the connection when its buffer has been sent, or after `send_seconds` at the latest."""
        if not self.is_closed:
            self.transport.close()
            self.abort_after(self._send_seconds)

    def abort_after(self, seconds: float) -> None:
        """End the connection after this time, if it has not ended by then."""
        if self._aborting is None:
            self._aborting = self._loop.call_later(seconds, self.transport.abort)

    def get_buffer(self, sizehint: int) -> memoryview:
        """The buffer for the next read (see `asyncio.BufferedProtocol`)."""
        return self._buffer

    def pause_writing(self) -> None:
        """The write buffer is full: stop reading from the peer, whose frames fill it."""
        if self.peer is not None:
            self.peer.pause()

    def resume_writing(self) -> None:
        """Called when the write buffer has room again: continue to read from the peer."""
        if self.peer is not None:
            self.peer.resume()

    def pause(self) -> None:
        """Stop reading until `resume` has been called as often as `pause`."""
        self._num_pauses += 1
        if self._num_pauses == 1 and not self.is_closed:
            self.transport.pause_reading()

    def resume(self) -> None:
        """Undo one `pause`."""
        self._num_pauses -= 1
        if not self._num_pauses and not self.is_closed:
            self.transport.resume_reading()

    def _pass_on(self, data: bytes, changed: list[bytes], start: int, end: int) -> None:
        """Send the pieces `changed`, then `data` from `start` to `end`. Keep what follows `end`, the beginning of a
        frame, until more of the frame has arrived.
        """
        self._num_skipped = end - len(data) if end > len(data) else 0
        self._held = data[end:]
        if self.peer is None or self.peer.transport.is_closing():
            return
        if changed:
            changed.append(data[start:end])
            self.peer.transport.write(b"".join(changed))
        elif end:
            self.peer.transport.write(data[:end])


def is_hung_up(transport: asyncio.Transport) -> bool:
    """Whether the other end of a connection has closed it, even if data that it sent before has not been read yet."""
    connection: socket.socket = transport.get_extra_info("socket")
    poll = select.poll()
    poll.register(connection.fileno(), _HUNG_UP)
    return bool(poll.poll(0))
