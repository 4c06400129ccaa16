"""Decides which connection may open the next call.

The relay gives a call a number and passes it on to gRPC's library. From then on the call is "under way". It has
"arrived" when the library calls its handler, the method that answers it.
"""

import itertools
from collections import deque
from typing import Protocol

NUM_AHEAD = 8
"""The most calls that are on their way through gRPC's library: enough that it never waits for the next one."""

NUM_ENDED = 32
"""The largest number of calls that have ended and may still be in gRPC's library. Beyond it, connections that have had
no answer yet must wait, since every other call waits behind these in the library's queue.
"""

NUM_ENDED_KNOWN = 256
"""The largest number of these calls for connections that have had an answer. The library drops calls of any connection
if a thousand are in its queue.
"""

_NUM_OVERTAKEN = 64
"""Calls arrive nearly in the order in which they were opened. When a call arrives, those that were opened this many
calls earlier have arrived, or the library has dropped them.
"""


class Waiting(Protocol):
    """A connection that wants to open a call."""

    def has_left(self) -> bool:
        """Whether the connection has ended, or its client has disconnected."""
        ...

    @property
    def is_known(self) -> bool:
        """Whether a call of the connection was answered. Known connections come before others."""
        ...

    def take_turn(self, call: int) -> None:
        """Open a call with this number. May call `Turns.take` for the next one."""
        ...

    def ended_arrived(self) -> None:
        """Called when a call of the connection that had ended before it arrived at its handler has left the library."""
        ...


class Turns:
    """Lets connections open calls one after the other, so that at most NUM_AHEAD calls are under way: opened, but not
    yet at their handlers.

    A call that ends before it arrives at its handler is not under way any more, whether its client, its connection or
    the library has ended it. But it may still be in the library's queue. Such calls are limited, since a client that
    repeatedly connects, calls and ends the call would fill the queue with them.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._under_way: set[int] = set()
        self._ended: dict[int, Waiting] = {}
        self._known: deque[Waiting] = deque()
        self._others: deque[Waiting] = deque()

    def take(self, connection: Waiting) -> int:
        """The number for a call that `connection` may open now; 0 if it must wait until its `take_turn` is called."""
        is_known = connection.is_known
        queue = self._known if is_known else self._others
        if self._has_place(NUM_ENDED_KNOWN if is_known else NUM_ENDED) and not self._known and not queue:
            return self._next()
        queue.append(connection)
        return 0

    def arrive(self, call: int) -> None:
        """Record that a call has arrived at its handler. May be called more than once."""
        self.leave(call)
        for each in [each for each in self._ended if each == call or each <= call - _NUM_OVERTAKEN]:
            self.forget(each)

    def end(self, call: int, connection: Waiting) -> bool:
        """Record that a call has ended. If it has not arrived at its handler yet, call `forget` some time later, since
        the library may not hand such a call to a handler.

        Returns:
            whether the call had not arrived. Then `connection.ended_arrived` is called when it has left the library.
        """
        if call not in self._under_way:
            return False
        self._ended[call] = connection
        return self.leave(call)

    def forget(self, call: int) -> None:
        """Record that a call which has ended is no longer in the library. May be called more than once."""
        connection = self._ended.pop(call, None)
        if connection is not None:
            connection.ended_arrived()
            self._go_on()

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
        while True:
            if self._known and self._has_place(NUM_ENDED_KNOWN):
                connection = self._known.popleft()
            elif self._others and not self._known and self._has_place(NUM_ENDED):
                connection = self._others.popleft()
            else:
                break
            if not connection.has_left():
                connection.take_turn(self._next())

    def _has_place(self, most_ended: int) -> bool:
        return len(self._under_way) < NUM_AHEAD and len(self._ended) < most_ended

    def _next(self) -> int:
        call = next(self._numbers)
        self._under_way.add(call)
        return call
