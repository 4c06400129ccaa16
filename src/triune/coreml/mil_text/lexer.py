"""The lexer of MIL text: its tokens are names, numbers, strings and punctuation."""

import re
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal, NamedTuple, NoReturn, TypeAlias, cast

from triune.core.errors import InvalidArgumentError, TriuneError

Kind: TypeAlias = Literal["name", "number", "string", "punctuation", "end"]

_WORD = re.compile(
    r"""
    \s*
    (?:
        (?P<name>[A-Za-z_][\w@.$/:]*)
      | (?P<number>[-+]?(?:0[xX][0-9a-fA-F]+(?:\.[0-9a-fA-F]*)?(?:[pP][-+]?[0-9]+)?
                      |[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?
                      |(?:inf|nan)\b))
      | (?P<string>")
      | (?P<punctuation>->|[()\[\]{}<>,;=?])
      | (?P<end>\Z)
    )
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
# The quantifiers are possessive, so that the match keeps no state for each escape.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
# The longest string, in characters. A match holds Python's GIL until it ends, and `string_of` takes 200 bytes of memory
# for each escape. The strings of real programs have hundreds of characters.
_LONGEST_STRING = 1 << 20
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", '"': '"', "'": "'", "\\": "\\", "/": "/"}
# The deepest nesting of types, values and blocks that is read. Core ML's own models have five levels.
_DEEPEST = 40
_LONGEST_QUOTE = 40


class Word(NamedTuple):
    """A token of the text, and the offset at which it begins."""

    kind: Kind
    text: str
    offset: int


class Words:
    """The tokens of a text, read lazily."""

    def __init__(self, text: str, file: str) -> None:
        """`file` is the name of the text in errors."""
        self._text = text
        self._file = file
        self._offset = 0
        self._ahead: deque[Word] = deque()
        self._depth = 0

    def peek(self, ahead: int = 0) -> Word:
        """Return the next token, or the one `ahead` tokens later, without taking it."""
        while len(self._ahead) <= ahead:
            self._ahead.append(self._read())
        return self._ahead[ahead]

    def take(self) -> Word:
        """Take the next token."""
        return self._ahead.popleft() if self._ahead else self._read()

    def is_next(self, punctuation: str) -> bool:
        """Whether the next token is `punctuation`."""
        return self.peek().text == punctuation

    def accept(self, punctuation: str) -> bool:
        """Take the next token if it is `punctuation`.

        Returns:
            whether it was taken.
        """
        is_next = self.is_next(punctuation)
        if is_next:
            self.take()
        return is_next

    def expect(self, text: str) -> Word:
        """Take the next token. Raises InvalidArgumentError if it is not `text`."""
        word = self.take()
        # The text of a string token includes its quotes, so that it never equals punctuation or a name.
        if word.text != text:
            self.fail(f"'{text}' is expected, not {_quoted(word)}", word)
        return word

    def expect_kind(self, kind: Kind, what: str) -> Word:
        """Take the next token. Raises InvalidArgumentError if it is of another kind; `what` names the expected token in
        the message.
        """
        word = self.take()
        if word.kind != kind:
            self.fail(f"{what} is expected, not {_quoted(word)}", word)
        return word

    def separated(self, closing: str) -> Generator[None]:
        """Iterate once for each element of a comma-separated list, and take the token `closing` at its end.

        In each pass the body of the caller's loop must take the tokens of one element.
        """
        if self.accept(closing):
            return
        while True:
            yield
            if self.accept(closing):
                return
            if not self.accept(","):
                word = self.peek()
                self.fail(f"',' or '{closing}' is expected, not {_quoted(word)}", word)

    @contextmanager
    def nested(self) -> Generator[None]:
        """A context for one nesting level. Raises InvalidArgumentError if there are too many."""
        self._depth += 1
        if self._depth > _DEEPEST:
            self.fail(f"more than {_DEEPEST} types, values or blocks within each other")
        try:
            yield
        finally:
            self._depth -= 1

    def where(self, word: Word | None = None) -> str:
        """The position of a token, or of the next one, for errors: the file, line and column; both count from 1."""
        offset = (word or self.peek()).offset
        line = self._text.count("\n", 0, offset) + 1
        column = offset - self._text.rfind("\n", 0, offset)
        return f"'{self._file}', line {line}, column {column}"

    def fail(self, message: str, word: Word | None = None, kind: type[TriuneError] = InvalidArgumentError) -> NoReturn:
        """Raise an error of type `kind`, with the position of `word`, or of the next token."""
        raise kind(f"{self.where(word)}: {message}")

    def _read(self) -> Word:
        found = _WORD.match(self._text, self._offset)
        if found is None:
            # Skip blanks, so that the error quotes the text that is not a token.
            at = self._offset
            while self._text[at].isspace():
                at += 1
            word = Word("punctuation", self._text[at], at)
            self.fail("a string does not end" if word.text == '"' else f"{_quoted(word)} is not part of MIL", word)
        kind = cast("Kind", found.lastgroup)
        start = found.start(kind)
        if kind == "string":
            found = _STRING.match(self._text, start, start + _LONGEST_STRING)
            if found is None:
                is_cut = len(self._text) > start + _LONGEST_STRING
                ending = f" within {_LONGEST_STRING} characters, the longest that is read" if is_cut else ""
                self.fail(f"a string does not end{ending}", Word("punctuation", '"', start))
            kind = "string"
        self._offset = found.end()
        return Word(kind, self._text[start : self._offset], start)


def string_of(words: Words, word: Word) -> str:
    """The content of a string token, without quotes and escapes."""

    def replaced(found: re.Match[str]) -> str:
        if found[1] not in _ESCAPES:
            words.fail(f"the escape '{found[0]}' in a string is not known", word)
        return _ESCAPES[found[1]]

    return _ESCAPE.sub(replaced, word.text[1:-1])


def _quoted(word: Word) -> str:
    if word.kind == "end":
        return "the end of the text"
    text = word.text if len(word.text) <= _LONGEST_QUOTE else f"{word.text[:_LONGEST_QUOTE]}..."
    return repr(text)
