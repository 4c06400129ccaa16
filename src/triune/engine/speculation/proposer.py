"""The protocol of classes that guess the next tokens of sequences (speculative decoding)."""

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import Protocol

from triune.engine.sequence import Sequence


class Proposer(Protocol):
    """Guesses how sequences continue. Used from the engine's thread."""

    def propose(self, wanted: Mapping[Sequence, int]) -> Mapping[Sequence, Seq[int]]:
        """Guess the next tokens of sequences.

        Args:
            wanted: how many tokens to guess at most, for each sequence.

        Returns:
            the guessed tokens of each sequence for which there are any.
        """
        ...

    def forget(self, sequence: Sequence) -> None:
        """Free the state of a sequence that has ended. Does nothing if there is none."""
        ...

    def reset(self) -> None:
        """Free the state of all sequences, even if its invariants are broken."""
        ...

    def check(self) -> None:
        """Check the invariants of the proposer's state. Raises InternalError naming a violated one."""
        ...
