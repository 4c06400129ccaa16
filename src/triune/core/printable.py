"""Text of others, names above all, as it may be written to a log or a terminal."""

import re
from typing import Final

UNPRINTABLE: Final = re.compile(
    # Controls, of which ESC commands a terminal and a newline forges a line; what ends lines elsewhere; what turns the
    # direction of writing; the tags that nobody sees; and what is no text at all: bytes that were not UTF-8.
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_NO_TEXT: Final = re.compile("[\ud800-\udfff]")


def printable(text: str) -> str:
    r"""The text in one line in which all can be seen: a newline is written `\n`, ESC `\x1b`."""
    return text if text.isascii() and text.isprintable() else UNPRINTABLE.sub(_escape, text)


def encodable(text: str) -> str:
    r"""The text as UTF-8 can hold it: a byte of a file's name that was none is written `\xff`."""
    return text if text.isascii() else _NO_TEXT.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    character = found.group()
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:
        # Python's own sign for a byte that is no UTF-8.
        return f"\\x{number - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
