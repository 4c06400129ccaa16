"""Decides which connection may open the next call.

A call is under way from when it gets its number, and the relay passes it on to gRPC's library, until the library hands
it to its handler, the method that answers it. Then the call has "arrived".
"""

import itertools
from collections import deque
from typing import Protocol

NUM_AHEAD = 8
"""How many calls may be on their way through gRPC's library: enough that it never waits for the next one."""


class Waiting(Protocol):
    """A connection that wants to open a call."""

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended."""
        ...

    def take_turn(self, call: int) -> None:
        """Open a call with this number. May call `Turns.take` for the next one."""
        ...

    def abandoned_arrived(self) -> None:
        """Called when a call that the connection has already ended arrives at its handler."""
        ...


class Turns:
    """Lets connections open calls one after the other, so that at most NUM_AHEAD calls are under way.

    A call that ends before it arrives at its handler is not under way any more.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._under_way: set[int] = set()
        self._abandoned: dict[int, Waiting] = {}
        self._waiting: deque[Waiting] = deque()

    def take(self, connection: Waiting) -> int:
        """The number for a call that `connection` may open now; 0 if it must wait until its `take_turn` is called."""
        if len(self._under_way) < NUM_AHEAD and not self._waiting:
            return self._next()
        self._waiting.append(connection)
        return 0

    def arrive(self, call: int) -> None:
        """Record that a call has arrived at its handler. May be called more than once."""
        if call in self._abandoned:
            self._abandoned.pop(call).abandoned_arrived()
        else:
            self.leave(call)

    def abandon(self, call: int, connection: Waiting) -> None:
        """Record that a call has ended before it arrived at its handler.

        gRPC's library may hand it to the handler all the same. Then the connection's `abandoned_arrived` is called.
        """
        self._abandoned[call] = connection

    def leave(self, call: int) -> bool:
        """Stop counting a call as on its way to its handler, because it has arrived there or has ended.

        Returns:
            whether the call was still counted.
        """
        if call not in self._under_way:
            return False
        self._under_way.remove(call)
        while self._waiting and len(self._under_way) < NUM_AHEAD:
            connection = self._waiting.popleft()
            if not connection.is_closed:
                connection.take_turn(self._next())
        return True

    def _next(self) -> int:
        call = next(self._numbers)
        self._under_way.add(call)
        return call
