"""Guesses that a sequence continues as it did after an earlier occurrence of its last tokens (prompt lookup)."""

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import Final

import numpy as np
from numpy.typing import NDArray

from triune.engine.sequence import Sequence

_SHORTEST: Final = 2
_LONGEST: Final = 8
_WINDOW: Final = 8192
"""Only this many of the latest tokens are searched, which takes about 20 us."""


class NgramProposer:
    """A `Proposer` that guesses by `continuation`. It keeps at most the latest 16384 tokens of each sequence, 4 bytes
    each.
    """

    def __init__(self) -> None:
        self._histories: dict[Sequence, _History] = {}

    def propose(self, wanted: Mapping[Sequence, int]) -> Mapping[Sequence, Seq[int]]:
        """Implements `Proposer.propose`."""
        found = {sequence: self._continuation(sequence, count) for sequence, count in wanted.items()}
        return {sequence: tokens for sequence, tokens in found.items() if tokens}

    def forget(self, sequence: Sequence) -> None:
        """Implements `Proposer.forget`."""
        self._histories.pop(sequence, None)

    def reset(self) -> None:
        """Implements `Proposer.reset`."""
        self._histories.clear()

    def check(self) -> None:
        """Implements `Proposer.check`. This proposer holds no blocks that could be miscounted."""

    def _continuation(self, sequence: Sequence, count: int) -> Seq[int]:
        history = self._histories.get(sequence)
        if history is None:
            history = self._histories[sequence] = _History()
        return continuation(history.latest(sequence.tokens), count)


class _History:
    """The latest tokens of one sequence as an array."""

    def __init__(self) -> None:
        self._known = np.empty(2 * _WINDOW, np.int32)
        self._begin = 0
        """The position in the sequence of the array's first token."""
        self._count = 0

    def latest(self, tokens: Seq[int]) -> NDArray[np.int32]:
        known = self._known
        if len(tokens) - self._begin > len(known):
            self._begin = len(tokens) - _WINDOW
            self._count = _WINDOW
            known[:_WINDOW] = tokens[-_WINDOW:]
        new = tokens[self._begin + self._count :]
        known[self._count : self._count + len(new)] = new
        self._count += len(new)
        return known[max(0, self._count - _WINDOW) : self._count]


def continuation(tokens: NDArray[np.int32], count: int) -> list[int]:
    """Guess the next tokens: those that followed the last tokens at an earlier occurrence.

    Of all positions where the last two tokens occur, the position with the longest match of up to eight tokens is
    taken; of equally long matches, the latest.

    Args:
        tokens: INT32 [tokens].
        count: the most tokens to return. If fewer follow the match, they are repeated, as if the text were a loop.

    Returns:
        the guessed tokens; none if the last two tokens did not occur before.
    """
    if len(tokens) <= _SHORTEST:
        return []
    places = np.flatnonzero((tokens[:-2] == tokens[-2]) & (tokens[1:-1] == tokens[-1])) + _SHORTEST
    if not len(places):
        return []
    for length in range(_SHORTEST + 1, _LONGEST + 1):
        inside = places[places >= length]
        longer = inside[tokens[inside - length] == tokens[-length]]
        if not len(longer):
            break
        places = longer
    place = int(places[-1])
    followed = tokens[place : place + count].tolist()
    return (followed * (count // len(followed) + 1))[:count]
