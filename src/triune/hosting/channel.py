"""Messages between the server and a worker process: a few bytes of JSON on a socket, and tensors in shared memory.

Each side sends one message and waits for the other side's message. A frame is its length (4 bytes, little-endian) and
the JSON. The file descriptor of new shared memory is sent with the first frame that refers to it.
"""

import json
import os
import socket
import struct
from collections.abc import Mapping
from typing import Any, cast

from triune.core.datatypes import Array
from triune.core.errors import InternalError
from triune.hosting.memory import Reader, Writer

_HEAD = struct.Struct("<I")
_CHUNK_BYTES = 1 << 16
_TENSORS = "tensors"
_GONE = "the other side of the channel is gone"
_NO_TENSORS: Mapping[str, Array] = {}


class Channel:
    """One end of the connection between two processes. Not thread-safe."""

    def __init__(self, connection: socket.socket) -> None:
        """Take ownership of a Unix stream socket."""
        self.connection = connection
        self._writer = Writer()
        self._reader = Reader()

    def send(self, message: Mapping[str, Any], tensors: Mapping[str, Array] = _NO_TENSORS) -> None:
        """Send a message. Its tensors are copied to shared memory, over those of the previous message.

        Raises:
            OSError: the other side has closed.
            InvalidArgumentError, InternalError: a tensor cannot be sent; nothing was sent.
        """
        layouts, descriptor = self._writer.write(tensors) if tensors else ([], None)
        body = json.dumps({**message, _TENSORS: layouts}).encode()
        frame = _HEAD.pack(len(body)) + body
        if descriptor is None:
            self.connection.sendall(frame)
            return
        try:
            num_sent = socket.send_fds(self.connection, [frame], [descriptor])
        finally:
            os.close(descriptor)
        self.connection.sendall(frame[num_sent:])

    def receive(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Wait for a message.

        Returns:
            the message, and its tensors: read-only views that are valid until the other side sends again.

        Raises:
            EOFError: the other side has closed.
            OSError: the other side has closed, or the socket's timeout has expired (TimeoutError).
            InternalError: the received bytes are not a message.
        """
        chunk, descriptors, _, _ = socket.recv_fds(self.connection, _CHUNK_BYTES, 1)
        if not chunk:
            raise EOFError(_GONE)
        for descriptor in descriptors:
            self._reader.replace(descriptor)
            os.close(descriptor)
        frame = bytearray(chunk)
        while len(frame) < _HEAD.size:
            self._extend(frame, _HEAD.size - len(frame))
        (length,) = _HEAD.unpack_from(frame)
        while len(frame) < _HEAD.size + length:
            self._extend(frame, _HEAD.size + length - len(frame))
        try:
            message = json.loads(frame[_HEAD.size :])
            tensors = self._reader.view(message.pop(_TENSORS))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InternalError(f"a worker process sent an invalid message: {error}") from error
        return cast("dict[str, Any]", message), tensors

    def close(self) -> None:
        """Close the connection. The other side gets an EOFError."""
        self.connection.close()

    def _extend(self, frame: bytearray, num_bytes: int) -> None:
        chunk = self.connection.recv(min(num_bytes, _CHUNK_BYTES))
        if not chunk:
            raise EOFError(_GONE)
        frame += chunk
