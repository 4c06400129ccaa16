"""Joins tokens to words, and limits how long a word lasts (openai/whisper, `tokenizer.py` and `timing.py`)."""

import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

_WITHOUT_SPACES: Final = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
_BEFORE_WORDS: Final = frozenset("\"'“¿([{-")
_BEHIND_WORDS: Final = frozenset("\"'.\u3002,\uff0c!\uff01?\uff1f:\uff1a”)]}\u3001")
_ENDS: Final = frozenset(".\u3002!\uff01?\uff1f")
_LONGEST_MEDIAN: Final = 0.7
"""The median duration of words, from which the longest allowed duration is computed, counts as at most this many
seconds.
"""


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a transcript.

    Attributes:
        start: where it begins, in seconds.
        end: where it ends, in seconds.
        text: the word with the space before it, and with punctuation.
        num_tokens: the number of its tokens.
        probability: the mean probability of its tokens.
    """

    start: float
    end: float
    text: str
    num_tokens: int
    probability: float


def split(tokens: Sequence[int], token_bytes: Sequence[bytes], language: str) -> list[tuple[str, int]]:
    """The words of a text, each with its number of tokens. A punctuation mark is a separate word.

    Args:
        tokens: the text's tokens.
        token_bytes: the bytes of each token of the vocabulary.
        language: the code of the text's language; some languages are written without spaces, so that each character
            counts as a word.
    """
    words: list[tuple[str, int]] = []
    for text, count in _characters(tokens, token_bytes):
        if not words or language in _WITHOUT_SPACES or text.startswith(" ") or text.strip() in string.punctuation:
            words.append((text, count))
        else:
            before, num_before = words[-1]
            words[-1] = before + text, num_before + count
    return words


def _characters(tokens: Sequence[int], token_bytes: Sequence[bytes]) -> list[tuple[str, int]]:
    """Join tokens until each text consists of whole characters. Returns (text, number of tokens)."""
    found: list[tuple[str, int]] = []
    content, count = b"", 0
    for place, token in enumerate(tokens, 1):
        content, count = content + token_bytes[token], count + 1
        try:
            text = content.decode()
        except UnicodeDecodeError:
            if place < len(tokens):
                continue
            text = content.decode(errors="replace")
        found.append((text, count))
        content, count = b"", 0
    return found


def limited(words: Sequence[Word], longest: float) -> list[Word]:
    """Shorten words at the beginning or end of a sentence to `longest` seconds, since the rest of their time is a
    pause.
    """
    found = list(words)
    for place, word in enumerate(found):
        if not place or word.end - word.start <= longest:
            continue
        if word.text.strip() in _ENDS:
            found[place] = replace(word, end=word.start + longest)
        elif found[place - 1].text.strip() in _ENDS:
            found[place] = replace(word, start=word.end - longest)
    return found


def longest_seconds(words: Sequence[Word]) -> float:
    """The longest plausible duration of a word next to a pause, in s: twice the median duration, but at most 1.4 s."""
    durations = [word.end - word.start for word in words if word.end > word.start]
    return 2 * min(float(np.median(durations)) if durations else 0.0, _LONGEST_MEDIAN)


def with_punctuation(words: Sequence[Word]) -> list[Word]:
    """Join punctuation to the words that it belongs to. The times stay those of the words."""
    found: list[Word] = []
    for word in reversed(words):
        # Join punctuation such as an opening quote to the word after it: it has a space before it and none after it.
        if found and word.text.startswith(" ") and word.text.strip() in _BEFORE_WORDS:
            found[-1] = _joined(word, found[-1], times=found[-1])
        else:
            found.append(word)
    words, found = found[::-1], []
    for word in words:
        if found and not found[-1].text.endswith(" ") and word.text in _BEHIND_WORDS:
            found[-1] = _joined(found[-1], word, times=found[-1])
        else:
            found.append(word)
    return found


def within(words: Sequence[Word], start: float, end: float, longest: float) -> list[Word]:
    """The words of a segment that lasts from `start` to `end`, in seconds. The first and the last word are shortened to
    `longest` seconds. If one of them then extends beyond the segment by more than half a second, it is cut off at the
    segment's beginning or end.
    """
    found = list(words)
    first = found[0]
    begin = max(first.start, first.end - longest)
    found[0] = replace(first, start=start if begin < start - 0.5 and first.end > start else begin)
    last = found[-1]
    finish = min(last.end, last.start + longest)
    found[-1] = replace(last, end=end if finish > end + 0.5 and last.start < end else finish)
    return found


def _joined(one: Word, other: Word, *, times: Word) -> Word:
    return replace(times, text=one.text + other.text, num_tokens=one.num_tokens + other.num_tokens)
