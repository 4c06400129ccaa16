"""The two connections of the relay for a client: one to the client, and one to gRPC's library."""

import asyncio
import itertools
import logging
import math
from typing import Final, Protocol

from triune.frontends.kserve.grpc.relay import frames
from triune.frontends.kserve.grpc.relay.heads import HeadSizes, MalformedError, block_of
from triune.frontends.kserve.grpc.relay.side import Side, is_hung_up
from triune.frontends.kserve.grpc.relay.turns import Turns
from triune.frontends.limits import Limits

_log = logging.getLogger(__name__)

CALL: Final = b"triune-call"
"""The metadata header by which the relay tells a call's handler the number of the call (see `turns`)."""

# Frames below this size are small. Larger ones carry data, and cost less for each byte.
_SMALL_FRAME_BYTES = 1024

# A connection is closed if a header block exceeds the limit this many times over. gRPC's library itself refuses a call
# whose headers exceed the limit.
_MOST_HEADS = 2

# A connection may send a burst of small frames: as many as its limit per second allows in this many seconds.
_BURST_SECONDS = 0.1

# Ending a call counts as this many small frames: cancelling a call that runs costs more than any other small frame.
_RESET_FRAMES = 40

# When a client disconnects, its calls are ended this many at a time, since cancelling them is slow.
_ENDED_AT_ONCE = 4
_ENDING_SECONDS = 0.008

# An abandoned call is one that ends before gRPC's library has handed it to its handler. A connection with this many
# abandoned calls may open no other call until the library hands one of them to its handler.
_MAX_ABANDONED = 4
# The library may never hand an abandoned call to its handler: after this many seconds the call counts as handed over.
_ABANDONED_SECONDS = 0.25

# The penalty points of a connection ("strikes") at which it is closed. It gets one for each call that it ends before
# gRPC's library has passed the call to its handler, one for each call beyond the connection's limit, and one for each
# hundredth of a second for which the relay must stop reading because of too many small frames. Each call that is
# answered takes one strike away.
_MAX_STRIKES = 2000
_STRIKES_PER_SECOND = 100
_PARTING_SECONDS = 1.0


class Shared(Protocol):
    """The limits, counts and buffer that all connections of the relay share.

    Attributes:
        limits: the limits on connections.
        turns: decides which connection opens the next call.
        num_calls: how many calls all connections have open.
        buffer: the buffer for reads of all connections.
    """

    limits: Limits
    turns: Turns
    num_calls: int
    buffer: memoryview

    def arrived(self, client: "ClientSide") -> None:
        """Called when a client has connected, to connect it to gRPC's library with `client.connect`."""
        ...

    def left(self, client: "ClientSide") -> None:
        """Called when a client has disconnected and its calls have ended."""
        ...


class LibrarySide(Side):
    """The connection to gRPC's library. Its frames are passed to the client."""

    def __init__(self, shared: Shared, client: "ClientSide") -> None:
        """Args:
        shared: the limits, counts and buffer that all connections share.
        client: the client's connection.
        """
        super().__init__(shared.buffer, shared.limits.send_seconds, 0)
        self.peer = self._client = client
        self._added = b""

    def refuse(self, stream: int) -> None:
        """Reset a call of the client, because there are too many. The client gets the reset before the library's
        next frame.
        """
        self._added += frames.reset(stream, frames.ENHANCE_YOUR_CALM)
        if not self._num_skipped:
            self._client.transport.write(self._added)
            self._added = b""

    def say_goodbye(self, last_stream: int, reason: str) -> None:
        """Send the client a GOAWAY frame with a reason, unless only a part of another frame has been sent so far."""
        if not self._num_skipped:
            frame = frames.go_away(last_stream, frames.ENHANCE_YOUR_CALM, reason.encode())
            self._client.transport.write(frame)

    def buffer_updated(self, nbytes: int) -> None:
        """Pass frames on to the client, and note which calls they end."""
        data = self._held + bytes(self._buffer[:nbytes])
        changed: list[bytes] = []
        start, position = 0, self._num_skipped
        while len(data) - position >= frames.HEAD_BYTES:
            if self._added:
                changed += (data[start:position], self._added)
                start, self._added = position, b""
            high, low, kind, flags, stream = frames.read_head(data, position)
            if kind <= frames.HEADERS and flags & frames.END_STREAM:
                self._client.answered(stream)
            elif kind == frames.RST_STREAM:
                self._client.end_call(stream)
            position += frames.HEAD_BYTES + (high << 8 | low)
        self._pass_on(data, changed, start, position)


class ClientSide(Side):
    """A client's connection. Its frames are passed to gRPC's library."""

    def __init__(self, shared: Shared) -> None:
        """Args:
        shared: the limits, counts and buffer that all connections share.
        """
        super().__init__(shared.buffer, shared.limits.send_seconds, frames.PREFACE_BYTES)
        self._shared = shared
        self._library: LibrarySide | None = None
        self._calls: dict[int, int] = {}
        self._last_stream = 0
        self._head_sizes = HeadSizes()
        self._num_abandoned = 0
        self.is_known = False
        self._is_waiting = False
        self._is_blocked = False
        self._is_expelled = False
        self._num_strikes = 0.0
        self._num_allowed = 0.0
        self._counted_at = 0.0

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended, or nothing more of it is read."""
        return self._is_expelled or self.transport.is_closing()

    def has_left(self) -> bool:
        """Whether the connection has ended, or its client has disconnected. asyncio does not notice that while reading
        is paused, as it is while the connection waits for its turn.
        """
        if not self.is_closed and is_hung_up(self.transport):
            self.transport.abort()
        return self.is_closed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport of a client that has connected, and have the relay connect it to gRPC's library."""
        super().connection_made(transport)
        self._shared.arrived(self)

    def connect(self, library: LibrarySide) -> None:
        """Pass frames on to `library` from now on."""
        self.peer = self._library = library
        if self._held:
            self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has disconnected: end its calls, a few at a time, and then the connection to the library."""
        library = self._library
        if library is not None and not library.is_closed and not self._num_skipped:
            for stream in tuple(itertools.islice(self._calls, _ENDED_AT_ONCE)):
                library.transport.write(frames.reset(stream, frames.CANCEL))
                self.end_call(stream)
            if self._calls:
                self._loop.call_later(_ENDING_SECONDS, self.connection_lost, None)
                return
        for stream in tuple(self._calls):
            self.end_call(stream)
        super().connection_lost(exc)
        self._shared.left(self)

    def end_call(self, stream: int) -> bool:
        """Remove one of the connection's calls, if it has not been removed before.

        If gRPC's library has not handed it to its handler yet, it counts as abandoned until the library does, or for
        _ABANDONED_SECONDS.

        Returns:
            whether it counts as abandoned.
        """
        call = self._calls.pop(stream, 0)
        self._shared.num_calls -= call > 0
        turns = self._shared.turns
        is_abandoned = turns.end(call, self)
        if is_abandoned:
            self._num_abandoned += 1
            self._loop.call_later(_ABANDONED_SECONDS, turns.forget, call)
        return is_abandoned

    def answered(self, stream: int) -> None:
        """Remove a call that ended with an answer. It takes one strike off the connection: see `_MAX_STRIKES`."""
        self.end_call(stream)
        self.is_known = True
        self._num_strikes = max(0, self._num_strikes - 1)

    def ended_arrived(self) -> None:
        """Called when an abandoned call has left gRPC's library: it counts no more, and a connection that waited for
        this may open its next call.
        """
        self._num_abandoned -= 1
        if self._is_blocked:
            self._is_blocked = False
            self._go_on()

    def buffer_updated(self, nbytes: int) -> None:
        """Pass frames on to gRPC's library, or hold them until it is this connection's turn to open a call."""
        data = self._held + bytes(self._buffer[:nbytes])
        if self._library is not None:
            self._forward(self._library, data)
        elif data:
            self._held = data
            self.pause()

    def take_turn(self, call: int) -> None:
        """Called when this connection may open a call: pass on the frames in `_held`, which begin with that call."""
        self._is_waiting = False
        self._go_on(call)

    def _go_on(self, call: int = 0) -> None:
        if self._library is not None and not (self._is_waiting or self._is_blocked or self.is_closed):
            self._forward(self._library, self._held, call)
        self.resume()

    def _forward(self, library: LibrarySide, data: bytes, call: int = 0) -> None:
        """Pass the frames of `data` on to the library. `call` is the number that the first new call in `data` has been
        given already; 0 if it has none.
        """
        size, allowed = len(data), self._count_allowed()
        changed: list[bytes] = []
        start, position = 0, self._num_skipped
        while size - position >= frames.HEAD_BYTES and (call or allowed > 0):
            high, low, kind, _, stream = frames.read_head(data, position)
            end = position + frames.HEAD_BYTES + (high << 8 | low)
            if end > size and end - position <= frames.MAX_BYTES:
                break
            if kind == frames.HEADERS:
                most = _MOST_HEADS * self._shared.limits.head_bytes
                last, end = frames.find_end(data, position, most)
                if end < 0:
                    self.transport.abort()
                if end <= 0:
                    break
                if stream > self._last_stream:
                    call = call or self._next_call()
                    if not call:
                        self.pause()
                        break
                num_bytes = self._decoded_bytes(data, position, end)
                if num_bytes > most:
                    self._shared.turns.leave(call)
                    self._expel(library, f"a call whose headers have more than {most} bytes, or are not valid")
                    break
                allowed -= num_bytes // _SMALL_FRAME_BYTES
                if stream > self._last_stream:
                    headers = frames.with_header(data[position:end], last - position, CALL, b"%d" % call)
                    changed += (data[start:position], headers, self._open(library, stream, call))
                    start, call = end, 0
            elif kind == frames.RST_STREAM and stream in self._calls:
                self._num_strikes += self.end_call(stream)
                allowed -= _RESET_FRAMES
            elif kind == frames.GOAWAY and end <= size:
                # gRPC's library writes the frame's text to standard error, whatever bytes it has.
                changed += (data[start:position], frames.without_reason(data[position:end]))
                start = end
            allowed -= end - position < _SMALL_FRAME_BYTES
            position = end
        self._pass_on(data, changed, start, position)
        self._num_allowed = allowed
        if allowed <= 0 and not self.is_closed:
            self.pause()
            seconds = (1 - allowed) / self._shared.limits.frames_per_second
            self._num_strikes += seconds * _STRIKES_PER_SECOND
            self._loop.call_later(seconds, self._go_on)
        if self._num_strikes > _MAX_STRIKES and not self.is_closed:
            self._expel(library, "too many calls without an answer, or too many small frames")

    def _decoded_bytes(self, data: bytes, start: int, end: int) -> float:
        """The size of a head (headers) when it is decoded; infinite if the head is not valid."""
        try:
            return self._head_sizes.size_of(block_of(data, start, end))
        except MalformedError:
            return math.inf

    def _expel(self, library: LibrarySide, reason: str) -> None:
        """Send the reason for the refusal, stop reading, and close the connection after the client has had time to read
        the reason.
        """
        _log.info("a gRPC connection is closed: it sent %s", reason)
        library.say_goodbye(self._last_stream, reason)
        self.pause()
        self._is_expelled = True
        self.abort_after(_PARTING_SECONDS)

    def _next_call(self) -> int:
        """The number for a call that may be opened now; 0 if the call must wait."""
        self._is_blocked = self._num_abandoned >= _MAX_ABANDONED
        call = 0 if self._is_blocked else self._shared.turns.take(self)
        self._is_waiting = not (call or self._is_blocked)
        return call

    def _open(self, library: LibrarySide, stream: int, call: int) -> bytes:
        """Open a call, or refuse it.

        All connections share one limit on open calls. A call is refused if its connection already has at least as many
        calls open as there are free places under that limit. So no connection can take all places.

        Returns:
            the bytes that must follow the call's headers: a RST_STREAM frame if the call is refused. The library must
            see the headers of such a call, too, because HPACK lets later headers refer to them.
        """
        shared = self._shared
        is_refused = len(self._calls) >= shared.limits.calls - shared.num_calls
        self._num_strikes += len(self._calls) >= shared.limits.streams
        self._last_stream = stream
        self._calls[stream] = call
        shared.num_calls += 1
        if not is_refused:
            return b""
        library.refuse(stream)
        self._num_strikes += self.end_call(stream)
        return frames.reset(stream, frames.CANCEL)

    def _count_allowed(self) -> float:
        """How many small frames may be passed on now."""
        rate = self._shared.limits.frames_per_second
        now = self._loop.time()
        earned = (now - self._counted_at) * rate
        self._counted_at = now
        return min(self._num_allowed + earned, rate * _BURST_SECONDS)
