"""A load that may be given up, and what it uses then."""

import contextlib
import threading
from collections.abc import Generator
from typing import Protocol

from triune.core.errors import UnavailableError


class Interruptible(Protocol):
    """What may take long, and can be told to end."""

    def interrupt(self) -> None:
        """Have it end soon. From any thread; does not wait."""
        ...


class Attempt:
    """A build that may be given up: what it runs then ends as soon as it can."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: list[Interruptible] = []
        self._is_given_up = False

    def add(self, made: Interruptible) -> None:
        """The build has made this, and is about to run it."""
        with self._lock:
            self.check()
            self._made.append(made)

    @contextlib.contextmanager
    def holding(self, lent: Interruptible) -> Generator[None]:
        """Use what others use before and afterwards: it is interrupted within, and never once this is left.

        Raises:
            UnavailableError: it was given up before, or within: then `lent` may have been interrupted.
        """
        self.add(lent)
        try:
            yield
        finally:
            with self._lock:
                self._made.remove(lent)
        self.check()

    @property
    def is_given_up(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._is_given_up

    def check(self) -> None:
        """Raise UnavailableError where it has been given up."""
        if self._is_given_up:
            raise UnavailableError("the load was given up")

    def give_up(self) -> None:
        """Nobody waits for it any more. From any thread."""
        with self._lock:
            self._is_given_up = True
            # Under the lock: what `holding` has let go of may be at work for somebody else.
            for each in self._made:
                each.interrupt()
