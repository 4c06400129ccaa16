"""However tokens divide a text, and wherever a stop text is in it, a client reads the same."""

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from triune.engine.text.detokenizer import Detokenizer
from triune.engine.text.stops import StopFinder

BYTES = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=20).map(str.encode),
    st.lists(st.sampled_from([b"\xe2", b"\x82", b"\xac", b"\xf0\x9f", b"\x98\x80", b"a", b" "])).map(b"".join),
)


@st.composite
def pieces(draw: st.DrawFn, whole: st.SearchStrategy[bytes] | st.SearchStrategy[str]) -> list[bytes] | list[str]:
    """A text cut at any places; some pieces are empty."""
    text = draw(whole)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=10)))
    return [text[begin:end] for begin, end in pairwise([0, *cuts, len(text)])]


@given(pieces(BYTES), st.booleans())
def test_any_division_into_tokens_gives_the_text_of_all_bytes(tokens: list[bytes], drops_space: bool) -> None:
    detokenizer = Detokenizer(tokens, drops_space=drops_space)
    text = "".join(detokenizer.add(token) for token in range(len(tokens))) + detokenizer.end()
    whole = b"".join(tokens)
    assert text == (whole.removeprefix(b" ") if drops_space else whole).decode("utf-8", "replace")


@given(pieces(BYTES))
def test_only_an_incomplete_character_is_held_back(tokens: list[bytes]) -> None:
    detokenizer = Detokenizer(tokens)
    text, given_bytes = "", b""
    for token, added in enumerate(tokens):
        text += detokenizer.add(token)
        given_bytes += added
        now = given_bytes.decode("utf-8", "replace")
        assert now.startswith(text)
        assert len(now) - len(text) <= 1
        assert text == now or now.endswith("\ufffd")


LETTERS = st.text("ab", max_size=30)
STOPS = st.lists(st.text("ab", min_size=1, max_size=5), max_size=4).map(tuple)


def first_stop(text: str, stops: tuple[str, ...]) -> str | None:
    """The stop text that is complete first, the longest of several; found by trying all prefixes."""
    for end in range(1, len(text) + 1):
        if found := [stop for stop in stops if text[:end].endswith(stop)]:
            return max(found, key=len)
    return None


@given(pieces(LETTERS), STOPS, st.booleans())
def test_a_stop_text_anywhere_gives_the_text_before_it(parts: list[str], stops: tuple[str, ...], keeps: bool) -> None:
    finder = StopFinder(stops, is_included=keeps)
    read, found = "", None
    for part in parts:
        sure, found = finder.add(part)
        read += sure
        if found is not None:
            break
    else:
        read += finder.end()
    whole = "".join(parts)
    assert found == first_stop(whole, stops)
    if found is None:
        assert read == whole
    else:
        end = min(match.end() for stop in stops if (match := re.search(stop, whole)))
        assert read == whole[: end if keeps else end - len(found)]


@given(pieces(LETTERS), STOPS)
def test_text_is_held_back_only_while_a_stop_text_may_begin_in_it(parts: list[str], stops: tuple[str, ...]) -> None:
    finder = StopFinder(stops)
    read = whole = ""
    for part in parts:
        sure, found = finder.add(part)
        if found is not None:
            return
        read, whole = read + sure, whole + part
        held = whole[len(read) :]
        assert read + held == whole
        begins = [size for size in range(len(whole)) if any(stop.startswith(whole[size:]) for stop in stops)]
        assert len(held) == (len(whole) - begins[0] if begins else 0)
