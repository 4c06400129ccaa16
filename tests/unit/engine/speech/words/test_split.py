"""Tokens as words, punctuation with the word that it belongs to, and pauses that are no part of a word."""

import pytest

from triune.engine.speech.words.split import Word, limited, longest_seconds, split, with_punctuation, within

BYTES = [
    b" Go",
    b" for",
    b"ward",
    b",",
    b" (",
    b"a",
    b")",
    "中".encode()[:2],
    "中".encode()[2:],
    "文".encode(),
    b".",
    b"\xff",
]


def words(*texts: str) -> list[Word]:
    return [Word(place, place + 0.5, text, 1, 1.0) for place, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("tokens", "language", "expected"),
    [
        ([0, 1, 2, 3], "en", [(" Go", 1), (" forward", 2), (",", 1)]),
        ([4, 5, 6], "en", [(" (a", 2), (")", 1)]),
        ([7, 8, 9, 10], "zh", [("中", 2), ("文", 1), (".", 1)]),
        ([7, 8, 9], "en", [("中文", 3)]),
        ([0, 11], "en", [(" Go\ufffd", 2)]),
        ([], "en", []),
    ],
)
def test_words_of_tokens(tokens: list[int], language: str, expected: list[tuple[str, int]]) -> None:
    assert split(tokens, BYTES, language) == expected


def test_punctuation_belongs_to_a_word_and_changes_no_time() -> None:
    found = with_punctuation(words(" He", ' "', "said", ",", '"', " (", "no", ")", "."))
    assert [each.text for each in found] == [" He", ' "said,"', " (no)."]
    assert [(each.start, each.end) for each in found] == [(0, 0.5), (2, 2.5), (6, 6.5)]
    assert [each.num_tokens for each in found] == [1, 4, 4]


def test_a_pause_beside_a_sentence_is_no_part_of_a_word() -> None:
    given = [Word(0, 0.5, " One", 1, 1.0), Word(0.5, 9, ".", 1, 1.0), Word(9, 20, " Two", 1, 1.0)]
    longest = longest_seconds([Word(0, 0.5, " a", 1, 1.0), Word(1, 1, ",", 1, 1.0)])
    found = limited(given, longest)
    assert [(each.start, each.end) for each in found] == [(0, 0.5), (0.5, 1.5), (19, 20)]
    assert longest_seconds(given) == 1.4
    assert longest_seconds([]) == 0


def test_words_stay_near_their_segment() -> None:
    given = [Word(0.0, 9.9, " One", 1, 1.0), Word(9.9, 10.2, " two", 1, 1.0), Word(10.2, 17.0, " three", 1, 1.0)]
    first, _, last = within(given, 9.5, 11.0, 0.8)
    assert (first.start, first.end) == (pytest.approx(9.1), 9.9)
    assert (last.start, last.end) == (10.2, 11.0)
    first, _, last = within(given, 9.8, 10.3, 0.8)
    assert (first.start, last.end) == (9.8, 10.3)
