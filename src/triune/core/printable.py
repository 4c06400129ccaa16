"""Escape text from outside, such as names, for a log or a terminal."""

import re
from typing import Final

UNPRINTABLE: Final = re.compile(
    # Escape control characters (ESC starts a terminal command, a newline forges a log line), Unicode line separators,
    # direction marks, invisible tags, and surrogates (bytes that were not UTF-8).
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_NO_TEXT: Final = re.compile("[\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Return the text in one line, with invisible characters escaped: a newline becomes `\n`, ESC becomes `\x1b`."""
    return text if text.isascii() and text.isprintable() else UNPRINTABLE.sub(_escape, text)


def cut(text: str, most: int) -> str:
    """Shorten a text to its first `most` characters, followed by its length: `xxx... (100000 characters)`."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def encodable(text: str) -> str:
    r"""Return the text with surrogates escaped, so that UTF-8 can encode it: byte 0xff of a file name becomes
    `\xff`.
    """
    return text if text.isascii() else _NO_TEXT.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    character = found.group()
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:
        # Show the byte: Python represents a byte that is not UTF-8 by the surrogate 0xDC00 + the byte.
        return f"\\x{number - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
