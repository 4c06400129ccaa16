import pytest

from support.http2 import CONTINUATION, END_HEADERS, GOAWAY, HEADERS, frame, head_of
from triune.frontends.kserve.grpc.relay import frames


def test_the_end_of_headers() -> None:
    first, second, third = frame(HEADERS, 0, 1, b"abc"), frame(CONTINUATION, 0, 1), frame(CONTINUATION, 4, 1, b"d")
    text = b"before" + first + second + third
    last = 6 + len(first) + len(second)
    assert frames.find_end(text + b"after", 6, 1000) == (last, len(text))
    for end in range(6, len(text)):
        assert frames.find_end(text[:end], 6, 1000) == (0, 0)
    assert frames.find_end(text, 6, len(text) - 7) == (0, -1)
    assert frames.find_end(frame(HEADERS, 4, 1, b"abc"), 0, 1000) == (0, 12)


@pytest.mark.parametrize("num_bytes", [0, 1000])
def test_too_many_frames(num_bytes: int) -> None:
    text = frame(HEADERS, 0, 1) + frame(CONTINUATION, 0, 1, bytes(num_bytes)) * frames.MAX_CONTINUATIONS
    assert frames.find_end(text, 0, 1 << 20) == (0, -1)


def test_a_header_more() -> None:
    block = head_of("ServerLive")
    whole = frames.with_header(frame(HEADERS, END_HEADERS | 1, 3, block), 0, b"n", b"v")
    assert whole == frame(HEADERS, 1, 3, block) + frame(CONTINUATION, END_HEADERS, 3, b"\0\1n\1v")
    first = frame(HEADERS, 0, 3, block)
    assert frames.with_header(first + frame(CONTINUATION, 4, 3, b"x"), len(first), b"n", b"v") == (
        first + frame(CONTINUATION, 0, 3, b"x") + frame(CONTINUATION, END_HEADERS, 3, b"\0\1n\1v")
    )


def test_the_text_of_a_parting_frame_is_left_out() -> None:
    numbers = b"\0\0\0\5\0\0\0\2"
    assert frames.without_reason(frame(GOAWAY, 0, 0, numbers + b"text")) == frame(GOAWAY, 0, 0, numbers)
    assert frames.without_reason(frame(GOAWAY, 1, 3, b"short")) == frame(GOAWAY, 1, 3, b"short")
