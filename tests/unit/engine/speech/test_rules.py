import numpy as np
import pytest

from triune.engine.speech.rules import FirstLook, WindowRules, compression_ratio
from triune.engine.speech.segments import cut
from triune.engine.speech.tokens import SpeechTokens
from triune.engine.weights.config import WhisperConfig

END = 100
SPECIAL = SpeechTokens(END, 101, 104, 105, 106, 107, 108, 109, {"en": 102, "de": 103})
FIRST = SPECIAL.first_stamp
ROWS = FIRST + 1501
CONFIG = WhisperConfig(ROWS, 80, 8, 1, 1, 8, 1, 1, 8, 1500, 448, suppress_tokens=(7,), begin_suppress_tokens=(9, END))


def stamp(seconds: float) -> int:
    return FIRST + round(seconds / 0.02)


def allowed_after(*chosen: int, logits: dict[int, float] | None = None, has_stamps: bool = True) -> np.ndarray:
    rules = WindowRules(CONFIG, SPECIAL, has_stamps=has_stamps)
    row = np.zeros(ROWS, np.float32)
    # Words are so likely that no time is, unless nothing else is allowed.
    row[:END] = 20
    for token in chosen:
        rules.allowed(row)
        rules.accept(token)
    for token, value in (logits or {}).items():
        row[token] = value
    return np.flatnonzero(rules.allowed(row))


def test_a_window_begins_with_a_time_within_its_first_second() -> None:
    assert allowed_after().tolist() == list(range(FIRST, stamp(1.0) + 1))


def test_without_times_it_begins_with_a_word_that_is_not_suppressed() -> None:
    tokens = allowed_after(has_stamps=False)
    assert set(range(END)) - set(tokens.tolist()) == {7, 9}
    assert not set(SPECIAL.never_chosen) & set(tokens.tolist())
    assert END not in tokens
    assert {9, END} <= set(allowed_after(3, has_stamps=False).tolist())


def test_after_the_first_time_comes_a_word() -> None:
    tokens = allowed_after(stamp(0.5))
    assert tokens.max() < FIRST
    assert END in tokens


def test_after_a_time_that_ends_a_segment_comes_another_or_the_end() -> None:
    tokens = allowed_after(stamp(0), 3, stamp(2), logits={END: 20})
    assert tokens.min() == END
    assert tokens[tokens >= FIRST].min() == stamp(2), "the next segment may begin where this one ended"


def test_times_never_go_back_and_no_segment_is_empty() -> None:
    tokens = allowed_after(stamp(0), 3, stamp(2), stamp(2), 4)
    assert tokens[tokens >= FIRST].min() == stamp(2) + 1


def test_it_is_a_time_if_times_are_likelier_than_each_word() -> None:
    likely = dict.fromkeys(range(stamp(3), stamp(5)), 17.0)
    assert allowed_after(stamp(0), 3, logits=likely).min() >= FIRST


def test_the_logprob_is_that_among_allowed_tokens() -> None:
    rules = WindowRules(CONFIG, SPECIAL, has_stamps=True)
    rules.allowed(np.zeros(ROWS, np.float32))
    rules.accept(stamp(0.5))
    assert rules.logprob == pytest.approx(-np.log(51), abs=1e-5)


def test_the_first_look_tells_language_and_silence() -> None:
    look = FirstLook(SPECIAL)
    row = np.full(ROWS, -30, np.float32)
    row[SPECIAL.no_speech], row[103] = 1, 1
    assert np.flatnonzero(look.allowed(row)).tolist() == [END]
    assert look.language == "de"
    assert look.no_speech == pytest.approx(0.5, abs=1e-3)


def test_repetition_is_seen() -> None:
    assert compression_ratio("so it goes on. " * 20) > 2.4
    assert compression_ratio("Go forward ten meters.") < 1.5


def test_prompts() -> None:
    assert SPECIAL.prompt([], "de", translates=False, has_stamps=True) == [101, 103, 105]
    assert SPECIAL.prompt([1, 2], "en", translates=True, has_stamps=False) == [106, 1, 2, 101, 102, 104, 109]


def test_a_window_is_cut_where_two_times_meet_and_the_next_begins_there() -> None:
    pieces, seconds = cut([stamp(0), 3, stamp(2), stamp(2.5), 4, stamp(6), stamp(6), 5], SPECIAL, 30.0)
    assert [(each.start, each.end, each.tokens[1:-1]) for each in pieces] == [(0, 2, (3,)), (2.5, 6, (4,))]
    assert seconds == 6


def test_a_window_that_ends_with_one_time_is_read_to_its_end() -> None:
    pieces, seconds = cut([stamp(0), 3, stamp(2), stamp(2), 4, stamp(6)], SPECIAL, 30.0)
    assert [(each.start, each.end) for each in pieces] == [(0, 2), (2, 6)]
    assert seconds == 30


@pytest.mark.parametrize(("tokens", "end"), [([stamp(0), 3, stamp(4)], 4), ([stamp(0), 3], 12.5), ([], 12.5)])
def test_a_window_without_pairs_is_one_piece(tokens: list[int], end: float) -> None:
    pieces, seconds = cut(tokens, SPECIAL, 12.5)
    assert [(each.start, each.end, each.tokens) for each in pieces] == [(0, end, tuple(tokens))]
    assert seconds == 12.5
