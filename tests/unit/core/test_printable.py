"""Names of others in logs and on terminals."""

import os

import pytest

from triune.core.printable import cut, encodable, printable


@pytest.mark.parametrize("text", ["", "model", "Küken 鳥 🐣", "a\\n", 'it\'s "here"', "e\u0301"])
def test_what_can_be_seen_stays(text: str) -> None:
    assert printable(text) == text
    assert encodable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("m\n2026 ERROR forged", "m\\n2026 ERROR forged"),
        ("\r\t\0", "\\r\\t\\x00"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("\x9b31m\x85", "\\x9b31m\\x85"),
        ("a\u2028b\u2029", "a\\u2028b\\u2029"),
        ("\u202egpj.exe\u2066", "\\u202egpj.exe\\u2066"),
        ("\U000e0041", "\\U000e0041"),
        (os.fsdecode(b"bad\xff"), "bad\\xff"),
        ("\ud800", "\\ud800"),
        ("ü\n", "ü\\n"),
    ],
)
def test_what_commands_or_hides_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert "\n" not in printable(text)
    printable(text).encode()


def test_what_utf8_cannot_hold_is_written_out() -> None:
    assert encodable(os.fsdecode(b"a\n\xc3\xbc\xff")) == "a\nü\\xff"


def test_long_texts_are_cut() -> None:
    assert cut("a" * 5, 5) == "a" * 5
    assert cut("a" * 6, 5) == "aaaaa... (6 characters)"
