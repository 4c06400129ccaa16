"""HTTP pipelining: responses of a connection are sent in the order of its requests, as HTTP/1.1 requires."""

from collections import deque
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class AnswerOrder:
    """Answers one request of a connection at a time and queues the others.

    Attributes:
        running: the request that is being answered, or the last one that was. None before the first.
        waiting: the queued requests and their ASGI apps, newest first. It is uvicorn's `pipeline`, to which uvicorn
            adds the app's requests.
    """

    def __init__(
        self, waiting: deque[tuple[RequestResponseCycle, Any]], begin: Callable[[RequestResponseCycle, Any], None]
    ) -> None:
        """Args:
        waiting: uvicorn's `pipeline`.
        begin: starts to answer a request; the response may have been sent when it returns.
        """
        self.running: RequestResponseCycle | None = None
        self.waiting = waiting
        self._begin = begin
        self._is_starting = False

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.running is None or self.running.response_complete

    def add(self, cycle: RequestResponseCycle, app: Any) -> bool:
        """Answer a new request now, or queue it.

        Returns:
            whether it was queued.
        """
        running = self.running
        if self.waiting or not (running is None or running.response_complete):
            self.waiting.appendleft((cycle, app))
            return True
        self.running = cycle
        self._begin(cycle, app)
        return False

    def start(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Start to answer a request."""
        self.running = cycle
        self._begin(cycle, app)

    def go_on(self) -> bool:
        """Start the next requests, after a response was sent.

        Returns:
            False if a call of this method is doing that already.
        """
        if self._is_starting:
            return False
        if not self.waiting:
            return True
        # Use a loop instead of recursion: hundreds of small requests may wait, and each is answered before `start`
        # returns.
        self._is_starting = True
        try:
            while self.waiting and self.is_idle:
                self.start(*self.waiting.pop())
        finally:
            self._is_starting = False
        return True
