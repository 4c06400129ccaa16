"""Find the reasoning of a model, `<think>...</think>`, before its answer, while the text arrives.

DeepSeek R1, Qwen 3, SmolLM 3 and others write it so. Some chat templates end the prompt with `<think>`, so that the
text begins within the reasoning.
"""

from typing import Final

OPENING, CLOSING = "<think>", "</think>"
REASONING_MARKERS: Final = frozenset({OPENING, CLOSING})
"""Texts that are special tokens of some models. They must be kept in the answer's text, since the reader looks for
them.
"""

_MOST_SPACES: Final = 64
"""The largest number of spaces before `<think>`. After more, the text is not taken as reasoning."""


def is_open_after(text: str) -> bool:
    """Whether a prompt ends with `<think>`, as some chat templates write it: the answer begins with reasoning then."""
    return text.rstrip().endswith(OPENING)


class ReasoningReader:
    """Divides the text of one answer into its reasoning and the remaining text. White space around the reasoning is
    dropped.

    Attributes:
        is_inside: whether the text so far ends within the reasoning.
    """

    def __init__(self, *, is_inside: bool) -> None:
        """`is_inside`: whether the prompt ends within the reasoning."""
        self.is_inside = is_inside
        self._is_before = not is_inside
        self._drops_spaces = is_inside
        self._held = ""

    def add(self, text: str, *, is_last: bool) -> tuple[str, str]:
        """Take the next piece of the answer.

        Args:
            text: the piece; may be empty.
            is_last: whether the answer ends with it.

        Returns:
            the new text of the reasoning, and of the answer after it, as far as they are certain.
        """
        self._held += text
        if self._is_before:
            rest = self._held.lstrip()
            may_open = len(self._held) - len(rest) <= _MOST_SPACES
            if may_open and OPENING.startswith(rest) and rest != OPENING and not is_last:
                return "", ""
            self._is_before = False
            self.is_inside = self._drops_spaces = may_open and rest.startswith(OPENING)
            if self.is_inside:
                self._held = rest[len(OPENING) :]
        if self._drops_spaces:
            self._held = self._held.lstrip()
            self._drops_spaces = not self._held
        if not self.is_inside:
            return "", self._taken(len(self._held))
        end = self._held.find(CLOSING)
        if end < 0:
            certain = len(self._held) if is_last else self._certain()
            return self._taken(certain), ""
        reasoning = self._taken(end).rstrip()
        self.is_inside = False
        self._held = self._held[len(CLOSING) :].lstrip()
        self._drops_spaces = not self._held
        return reasoning, self._taken(len(self._held))

    def _certain(self) -> int:
        """The length of the part of the held text that certainly belongs to the reasoning: all but what may be the
        beginning of `</think>` at its end, and white space before that.
        """
        length = len(self._held)
        for count in range(min(len(CLOSING) - 1, length), 0, -1):
            if self._held.endswith(CLOSING[:count]):
                length -= count
                break
        return len(self._held[:length].rstrip())

    def _taken(self, length: int) -> str:
        taken, self._held = self._held[:length], self._held[length:]
        return taken
