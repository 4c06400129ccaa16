"""The order of answers on a connection: HTTP/1.1 has them in the order of the requests, however many wait."""

from collections import deque
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class AnswerOrder:
    """One request of a connection is answered, the others wait for their turn.

    Attributes:
        running: whose turn it is, or was, if nothing came after it. None before the first.
        waiting: the others with their apps, the newest first. It is uvicorn's own, which adds the app's requests.
    """

    def __init__(
        self, waiting: deque[tuple[RequestResponseCycle, Any]], begin: Callable[[RequestResponseCycle, Any], None]
    ) -> None:
        """Args:
        waiting: uvicorn's.
        begin: has a request answered; the answer may be out when this returns.
        """
        self.running: RequestResponseCycle | None = None
        self.waiting = waiting
        self._begin = begin
        self._is_starting = False

    @property
    def is_idle(self) -> bool:
        """Nothing is being answered."""
        return self.running is None or self.running.response_complete

    def add(self, cycle: RequestResponseCycle, app: Any) -> bool:
        """Answer a request that came, at once or in its turn. Returns whether it has to wait."""
        running = self.running
        if self.waiting or not (running is None or running.response_complete):
            self.waiting.appendleft((cycle, app))
            return True
        self.start(cycle, app)
        return False

    def start(self, cycle: RequestResponseCycle, app: Any) -> None:
        """It is the turn of this request."""
        self.running = cycle
        self._begin(cycle, app)

    def go_on(self) -> bool:
        """An answer is out: start what waits. False if that is under way already."""
        if self._is_starting:
            return False
        if not self.waiting:
            return True
        # A loop, for hundreds of small requests may wait, each answered before its start returns.
        self._is_starting = True
        try:
            while self.waiting and self.is_idle:
                self.start(*self.waiting.pop())
        finally:
            self._is_starting = False
        return True
