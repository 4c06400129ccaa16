"""Decides which connection may open the next call.

The relay gives a call a number and passes it on to gRPC's library. From then on the call is "under way". It has
"arrived" when the library calls its handler, the method that answers it.
"""

import itertools
from collections import deque
from typing import Protocol

NUM_AHEAD = 8
"""The most calls that are on their way through gRPC's library: enough that it never waits for the next one."""

NUM_ORPHANS = 256
"""The largest number of calls of disconnected clients that may be in gRPC's library. Beyond it, connections that have
had no answer yet must wait. The library drops calls of any connection if a thousand are in its queue.
"""


class Waiting(Protocol):
    """A connection that wants to open a call."""

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended."""
        ...

    @property
    def is_known(self) -> bool:
        """Whether a call of the connection was answered. Known connections come before others."""
        ...

    def take_turn(self, call: int) -> None:
        """Open a call with this number. May call `Turns.take` for the next one."""
        ...

    def abandoned_arrived(self) -> None:
        """Called when a call that the connection has already ended arrives at its handler."""
        ...


class Turns:
    """Lets connections open calls one after the other, so that at most NUM_AHEAD calls are under way: opened, but not
    yet at their handlers.

    A call that ends before it arrives at its handler is not under way any more. If its connection has ended, too, the
    call is an orphan until it arrives. Orphans are limited, since a client that repeatedly connects, calls and
    disconnects would fill the library's queue with them.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._under_way: set[int] = set()
        self._orphans: set[int] = set()
        self._abandoned: dict[int, Waiting] = {}
        self._known: deque[Waiting] = deque()
        self._others: deque[Waiting] = deque()

    def take(self, connection: Waiting) -> int:
        """The number for a call that `connection` may open now; 0 if it must wait until its `take_turn` is called."""
        is_known = connection.is_known
        queue = self._known if is_known else self._others
        has_place = len(self._under_way) < NUM_AHEAD and (is_known or len(self._orphans) < NUM_ORPHANS)
        if has_place and not self._known and not queue:
            return self._next()
        queue.append(connection)
        return 0

    def arrive(self, call: int) -> None:
        """Record that a call has arrived at its handler. May be called more than once."""
        if call in self._abandoned:
            self._abandoned.pop(call).abandoned_arrived()
        elif call in self._orphans:
            self._orphans.remove(call)
            self._go_on()
        else:
            self.leave(call)

    def abandon(self, call: int, connection: Waiting) -> None:
        """Record that a call has ended before it arrived at its handler.

        gRPC's library may hand it to the handler all the same. Then the connection's `abandoned_arrived` is called.
        """
        self._abandoned[call] = connection

    def orphan(self, call: int) -> bool:
        """Record that a call's connection has ended. Call `arrive` some time later, since the library may not hand such
        a call to a handler.

        Returns:
            whether the call was under way, and is an orphan now.
        """
        if call not in self._under_way:
            return False
        self._orphans.add(call)
        return self.leave(call)

    def leave(self, call: int) -> bool:
        """Stop counting a call as on its way to its handler, because it has arrived there or has ended.

        Returns:
            whether the call was still counted.
        """
        if call not in self._under_way:
            return False
        self._under_way.remove(call)
        self._go_on()
        return True

    def _go_on(self) -> None:
        """Let waiting connections open calls, up to the limit."""
        while len(self._under_way) < NUM_AHEAD:
            if self._known:
                connection = self._known.popleft()
            elif self._others and len(self._orphans) < NUM_ORPHANS:
                connection = self._others.popleft()
            else:
                break
            if not connection.is_closed:
                connection.take_turn(self._next())

    def _next(self) -> int:
        call = next(self._numbers)
        self._under_way.add(call)
        return call
