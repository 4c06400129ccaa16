"""Assign the words of a window to its segments."""

from collections.abc import Sequence
from dataclasses import replace

from triune.engine.speech.segments import Segment
from triune.engine.speech.tokens import SpeechTokens
from triune.engine.speech.words.split import Word, limited, longest_seconds, with_punctuation, within


def with_words(segments: Sequence[Segment], words: Sequence[Word], special: SpeechTokens, at: float) -> list[Segment]:
    """Return the segments of a window with their words.

    Args:
        segments: the segments, with all tokens of the window's text.
        words: the words of that text, whose times count from the window's beginning.
        special: the special tokens.
        at: where the window begins, in seconds.
    """
    found: list[Segment] = []
    longest = longest_seconds(words)
    left = [replace(word, start=at + word.start, end=at + word.end) for word in limited(words, longest)]
    missing = 0
    for segment in segments:
        own: list[Word] = []
        # Take words until they have as many tokens as the segments up to this one. So a word whose tokens belong to
        # two segments is assigned to the first of them.
        missing += len(special.text_tokens(segment.tokens))
        while left and missing > 0:
            own.append(left.pop(0))
            missing -= own[-1].num_tokens
        own = within(with_punctuation(own), segment.start, segment.end, longest) if own else []
        found.append(replace(segment, words=tuple(own)))
    return found
