"""The seam of what guesses tokens."""

from collections.abc import Sequence as Seq
from typing import Protocol

from triune.engine.sequence import Sequence


class Proposer(Protocol):
    """Guesses how sequences go on. Used from the engine's thread."""

    def propose(self, sequence: Sequence, count: int) -> Seq[int]:
        """Guess the next tokens of a sequence: at most `count` of them, or none."""
        ...

    def forget(self, sequence: Sequence) -> None:
        """Free what is held for a sequence that has ended. Does nothing if that is nothing."""
        ...
