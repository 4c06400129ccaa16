"""Cancels loads that run in a thread."""

import contextlib
import threading
from collections.abc import Generator
from typing import Protocol

from triune.core.errors import UnavailableError


class Interruptible(Protocol):
    """An object, such as an executable, whose current work can be interrupted."""

    def interrupt(self) -> None:
        """Ask the current work to end soon. Any thread may call this; it does not wait."""
        ...


class Attempt:
    """A build that can be cancelled. Cancelling it interrupts the call that the build is in."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: list[Interruptible] = []
        self._is_given_up = False

    def add(self, made: Interruptible) -> None:
        """Register an object that the build is about to run, so that cancelling interrupts it."""
        with self._lock:
            self.check()
            self._made.append(made)

    @contextlib.contextmanager
    def holding(self, lent: Interruptible) -> Generator[None]:
        """Register an object that other builds use, too, until the context ends.

        Raises:
            UnavailableError: the build was cancelled before or within the context. `lent` may have been interrupted.
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
        """Whether the build was cancelled."""
        return self._is_given_up

    def check(self) -> None:
        """Raise UnavailableError if the build was cancelled."""
        if self._is_given_up:
            raise UnavailableError("the load was given up")

    def give_up(self) -> None:
        """Cancel the build. May be called from any thread."""
        with self._lock:
            self._is_given_up = True
            # Interrupt while holding the lock, since after the end of `holding` another build may use the object.
            for each in self._made:
                each.interrupt()
