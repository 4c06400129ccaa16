"""Read a text that arrives in pieces. Parsers are generators: they yield when they need more of the text."""

import json
import re
from collections.abc import Callable, Generator
from typing import Any, Final, TypeAlias, TypeVar

T = TypeVar("T")

Reading: TypeAlias = Generator[None, None, T]
"""A parser as a generator. It yields to get more text, and returns the result."""

_STEP_CHARACTERS: Final = 1 << 16
_SPACES: Final = re.compile(r"\s*")
_OUTSIDE: Final = re.compile(r'["{}\[\]]')
_INSIDE: Final = re.compile(r'["\\]')
_LITERAL: Final = re.compile(r"[^,}\]\s]*")


class Cursor:
    """A position in a text that is still arriving.

    A parser reads the text only by these methods, which wait for more text until the result is certain. So the result
    does not depend on how the text was divided into pieces.

    Attributes:
        text: the text that has arrived, without the part that `forget` dropped.
        at: the position in it.
        is_ended: whether no more will arrive.
    """

    def __init__(self) -> None:
        self.text = ""
        self.at = 0
        self.is_ended = False

    def forget(self) -> None:
        """Drop the text before the cursor, since no parser returns to it. Long texts are dropped in large steps."""
        if self.at == len(self.text) or self.at > _STEP_CHARACTERS:
            self.text = self.text[self.at :]
            self.at = 0

    def peek(self) -> Reading[str]:
        """The next character, which is not skipped; "" at the end of the text."""
        while self.at == len(self.text):
            if self.is_ended:
                return ""
            yield
        return self.text[self.at]

    def spaces(self) -> str:
        """Read the white space that has arrived; may be empty."""
        start = self.at
        self.at = self._end_of(_SPACES)
        return self.text[start : self.at]

    def skip_spaces(self) -> Reading[str]:
        """Skip white space. Returns the character after it, as `peek` does."""
        while (yield from self.peek()).isspace():
            self.spaces()
        return (yield from self.peek())

    def take(self, *texts: str) -> Reading[str]:
        """Skip one of `texts` at the cursor and return it; "" if none is next. No text may be a prefix of another."""
        while True:
            for each in texts:
                if self.text.startswith(each, self.at):
                    self.at += len(each)
                    return each
            rest = self.text[self.at : self.at + max(map(len, texts))]
            if self.is_ended or not any(each.startswith(rest) for each in texts):
                return ""
            yield

    def until(self, end: str, max_characters: int | None = None) -> Reading[str | None]:
        """Read up to the text `end`, skip that, and return what came before it; None if `end` does not come, or not
        within `max_characters`.
        """
        start, searched = self.at, self.at
        while True:
            found = self.text.find(end, searched)
            length = (found if found >= 0 else len(self.text) - len(end)) - start
            if max_characters is not None and length > max_characters:
                return None
            if found >= 0:
                self.at = found + len(end)
                return self.text[start:found]
            if self.is_ended:
                return None
            searched = max(start, len(self.text) - len(end) + 1)
            yield

    def word(self, letters: re.Pattern[str]) -> Reading[str]:
        """Read characters as long as each matches `letters`; the result may be empty."""
        start = self.at
        while letters.fullmatch((yield from self.peek())):
            self.at += 1
        return self.text[start : self.at]

    def json(self, on_text: Callable[[str], None] | None = None) -> Reading[str | None]:
        """Read a JSON value, as it is written.

        Args:
            on_text: if given, it is called with each piece of an object, array or string as it arrives, and the text is
                forgotten.

        Returns:
            the value's text, or "" with `on_text`. None if the text ends before the value does, or there is no value.
        """
        first = yield from self.peek()
        if first not in ("{", "[", '"'):
            return (yield from self._literal())
        start, depth, is_inside, is_escaped = self.at, 0, False, False
        while (yield from self.peek()):
            if is_escaped:
                self.at += 1
                is_escaped = False
            found = None
            while (found := (_INSIDE if is_inside else _OUTSIDE).search(self.text, self.at)) is not None:
                self.at = found.end()
                if found[0] == "\\":
                    is_escaped = True
                    break
                if found[0] == '"':
                    is_inside = not is_inside
                else:
                    depth += 1 if found[0] in "{[" else -1
                if depth == 0 and not is_inside:
                    break
            else:
                self.at = len(self.text)
            is_done = depth == 0 and not is_inside and not is_escaped
            if on_text is not None:
                on_text(self.text[start : self.at])
                self.forget()
                start = self.at
            if is_done:
                return self.text[start : self.at]
        return None

    def _literal(self) -> Reading[str | None]:
        start = self.at
        while (yield from self.peek()):
            self.at = self._end_of(_LITERAL)
            if self.at < len(self.text):
                return self.text[start : self.at] or None
        return None

    def _end_of(self, pattern: re.Pattern[str]) -> int:
        found = pattern.match(self.text, self.at)
        return self.at if found is None else found.end()


def decoded(text: str) -> Any:
    """The value of a JSON text. Raises ValueError if the text is not valid JSON, or is nested too deep."""
    try:
        return json.loads(text, strict=False)
    except RecursionError:
        raise ValueError("nested too deep") from None
