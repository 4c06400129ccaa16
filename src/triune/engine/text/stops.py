"""Find the stop texts that end an answer, even if they extend over several tokens."""

from collections.abc import Sequence
from typing import Final

from triune.core.errors import InvalidArgumentError

MAX_STOPS: Final = 64
"""The most stop texts of a request."""

MAX_CHARACTERS: Final = 4096
"""The most characters of all stop texts of a request together."""


class StopFinder:
    """Looks for stop texts in a text that arrives in pieces.

    The stop text that ends first counts; of several that end at the same character, the longest counts. Text that may
    be the beginning of a stop text is held back. The finder runs the automaton of Knuth, Morris and Pratt (1977) over
    the characters, so that the division into pieces does not matter, and the time does not depend on the lengths of
    stop texts.
    """

    def __init__(self, stops: Sequence[str], *, is_included: bool = False) -> None:
        """Args:
        stops: the stop texts; none of them may be empty.
        is_included: whether the text ends after the stop text, not before it.

        Raises:
            InvalidArgumentError: a stop text is empty, or there are too many, or they are too long.
        """
        if len(stops) > MAX_STOPS:
            raise InvalidArgumentError(f"there are {len(stops)} stop texts; at most {MAX_STOPS} are taken")
        if (length := sum(map(len, stops))) > MAX_CHARACTERS:
            raise InvalidArgumentError(
                f"the stop texts have {length} characters together; at most {MAX_CHARACTERS} are taken"
            )
        if "" in stops:
            raise InvalidArgumentError("a stop text is empty, so that no answer could begin; leave it out")
        self._stops = [(stop, _borders(stop)) for stop in stops]
        self._matched = [0] * len(stops)
        self._is_included = is_included
        self._held = ""

    def add(self, text: str) -> tuple[str, str | None]:
        """Take the next piece of the text.

        Returns:
            the held-back and new text up to where a stop text may begin; and the stop text that was found, or None.
                After one was found, no piece may follow.
        """
        if not self._stops:
            return text, None
        for at, letter in enumerate(text):
            found = self._advance(letter)
            if found is not None:
                whole = self._held + text[: at + 1]
                return whole[: len(whole) - (0 if self._is_included else len(found))], found
        whole = self._held + text
        end = len(whole) - max(self._matched)
        self._held = whole[end:]
        return whole[:end], None

    def end(self) -> str:
        """The text that is still held back. No further piece may be added."""
        return self._held

    def _advance(self, letter: str) -> str | None:
        """Compare one more character; returns the longest stop text that it completes."""
        found: str | None = None
        for which, (stop, borders) in enumerate(self._stops):
            matched = self._matched[which]
            while matched and stop[matched] != letter:
                matched = borders[matched - 1]
            if stop[matched] == letter:
                matched += 1
                if matched == len(stop):
                    found = stop if found is None or len(stop) > len(found) else found
                    matched = borders[matched - 1]
            self._matched[which] = matched
        return found


def _borders(stop: str) -> list[int]:
    """For each prefix of a text, the length of the longest shorter text with which it both begins and ends."""
    borders, length = [0] * len(stop), 0
    for at in range(1, len(stop)):
        while length and stop[at] != stop[length]:
            length = borders[length - 1]
        length += stop[at] == stop[length]
        borders[at] = length
    return borders
