"""What both ends of a relayed connection do."""

import asyncio
from typing import cast


class Side(asyncio.BufferedProtocol):
    """One of two connections that pass on to each other what they receive."""

    def __init__(self, buffer: memoryview, send_seconds: float, num_unframed_bytes: int) -> None:
        """Args:
        buffer: what to read into. All connections share it, since what was read is copied before the next read.
        send_seconds: how long the last bytes may take to be sent.
        num_unframed_bytes: how many bytes precede the first frame.
        """
        self.peer: Side | None = None
        self._buffer = buffer
        self._send_seconds = send_seconds
        self._num_skipped = num_unframed_bytes
        self._held = b""
        self._num_pauses = 0

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended or is about to."""
        return self.transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended: end the other one, too."""
        if self.peer is not None:
            self.peer.close()

    def close(self) -> None:
        """End the connection when it has sent what it was given, but wait for that no longer than for an answer."""
        if not self.is_closed:
            self.transport.close()
            asyncio.get_running_loop().call_later(self._send_seconds, self.transport.abort)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to read to."""
        return self._buffer

    def pause_writing(self) -> None:
        """Too much that was passed on waits to be sent: read no more of it."""
        if self.peer is not None:
            self.peer.pause()

    def resume_writing(self) -> None:
        """It was sent: read on."""
        if self.peer is not None:
            self.peer.resume()

    def pause(self) -> None:
        """Read no more until `resume` was called as often as this."""
        self._num_pauses += 1
        if self._num_pauses == 1 and not self.is_closed:
            self.transport.pause_reading()

    def resume(self) -> None:
        """Undo one `pause`."""
        self._num_pauses -= 1
        if not self._num_pauses and not self.is_closed:
            self.transport.resume_reading()

    def _pass_on(self, data: bytes, changed: list[bytes], start: int, end: int) -> None:
        """Send `changed` and the frames from `start` to `end`, where the next frame begins; hold what follows."""
        self._num_skipped = max(0, end - len(data))
        self._held = data[end:]
        if self.peer is None or self.peer.is_closed:
            return
        if changed:
            self.peer.transport.write(b"".join((*changed, data[start:end])))
        elif end:
            self.peer.transport.write(data[:end])
