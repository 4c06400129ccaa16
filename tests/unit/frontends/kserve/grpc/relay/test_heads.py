"""Decoded sizes of heads, by the examples of RFC 7541, appendix C, and by what hostile clients send."""

import struct

import pytest

from triune.frontends.kserve.grpc.relay import frames
from triune.frontends.kserve.grpc.relay.heads import HeadSizes, MalformedError, block_of

STATIC = 48


def test_literals_are_counted_and_remembered() -> None:
    sizes = HeadSizes()
    # C.2.1: custom-key: custom-header, which is added to the table.
    block = bytes.fromhex("400a637573746f6d2d6b65790d637573746f6d2d686561646572")
    assert sizes.size_of(block) == len("custom-keycustom-header")
    assert sizes.size_of(b"\xbe") == len("custom-keycustom-header")
    # A literal with that name, which is not added.
    assert sizes.size_of(b"\x0f\x2f\x03abc") == len("custom-keyabc")
    with pytest.raises(MalformedError):
        sizes.size_of(b"\xbf")


def test_requests_in_a_row() -> None:
    sizes = HeadSizes()
    # C.3: three requests, of which the second and third name headers of those before.
    first = bytes.fromhex("828684410f7777772e6578616d706c652e636f6d")
    assert sizes.size_of(first) == 4 * STATIC + len("www.example.com")
    second = bytes.fromhex("828684be58086e6f2d6361636865")
    assert sizes.size_of(second) == 3 * STATIC + (STATIC + len("www.example.com")) + (STATIC + len("no-cache"))
    third = bytes.fromhex("828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565")
    assert sizes.size_of(third) == 3 * STATIC + (STATIC + len("www.example.com")) + len("custom-keycustom-value")


def test_huffman_codes_count_as_their_longest_texts() -> None:
    # C.4.1: 12 bytes code the 15 letters of www.example.com.
    block = bytes.fromhex("828684418cf1e3c2e5f23a6ba0ab90f4ff")
    assert HeadSizes().size_of(block) == 4 * STATIC + 12 * 8 // 5


def test_one_byte_names_four_thousand() -> None:
    sizes = HeadSizes()
    value = b"v" * 4000
    assert sizes.size_of(b"\x40\x03big\x7f" + bytes([(4000 - 127) % 128 | 128, (4000 - 127) // 128]) + value) == 4003
    assert sizes.size_of(b"\xbe" * 15000) == 15000 * 4003


def test_the_latest_entries_have_the_lowest_numbers() -> None:
    sizes = HeadSizes()
    for number in range(200):
        sizes.size_of(b"\x40\x01a" + bytes([number % 100]) + b"x" * (number % 100))
    assert sizes.size_of(b"\xbe") == 1 + 99
    assert sizes.size_of(b"\xbf") == 1 + 98
    # A new size of the table changes no number.
    assert sizes.size_of(b"\x3f\x61\xbe") == 1 + 99


@pytest.mark.parametrize(
    "block",
    [b"\x80", b"\x40", b"\x40\x05ab", b"\x40\x01a", b"\x40\x01a\x05ab", b"\xff", b"\xff\xff\xff\xff\xff\xff\xff"],
)
def test_what_is_not_valid(block: bytes) -> None:
    with pytest.raises(MalformedError):
        HeadSizes().size_of(block)


def frame(kind: int, flags: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", 1) + payload


def test_blocks_of_several_frames() -> None:
    head = frame(frames.HEADERS, 0x8 | 0x20, b"\x03" + bytes(5) + b"abc" + bytes(3))
    data = b"??" + head + frame(frames.CONTINUATION, 0, b"def") + frame(frames.CONTINUATION, 4, b"g") + b"rest"
    assert block_of(data, 2, len(data) - 4) == b"abcdefg"
    assert block_of(data, 2, 2 + len(head)) == b"abc"
    with pytest.raises(MalformedError):
        block_of(frame(frames.HEADERS, 0x8, b"\x09abc"), 0, 13)


# The Huffman codes of RFC 7541, appendix B, of the characters below: the code and its number of bits.
CODES = {
    "/": (0x18, 6), "a": (0x3, 5), "e": (0x5, 5), "n": (0x2A, 6), "I": (0x64, 7), "X": (0xFC, 8), "Z": (0xFD, 8),
    "!": (0x3F8, 10), "+": (0x7FB, 11), "#": (0xFFA, 12), "$": (0x1FF9, 13), "}": (0x3FFD, 14), "^": (0x3FFC, 14),
    "<": (0x7FFC, 15), "{": (0x7FFE, 15), "\\": (0x7FFF0, 19), "\xc3": (0x7FFF1, 19), "\xff": (0x3FFFFEE, 26),
    "\x80": (0xFFFE6, 20), "\n": (0x3FFFFFFC, 30),
}  # fmt: skip


def huffman(text: str) -> bytes:
    """A string with its length in front, in Huffman coding and padded with ones."""
    bits = "".join(f"{code:0{length}b}" for code, length in (CODES[each] for each in text))
    bits += "1" * (-len(bits) % 8)
    coded = int(bits, 2).to_bytes(len(bits) // 8)
    return bytes([0x80 | len(coded)]) + coded


def plain(text: bytes) -> bytes:
    return bytes([len(text)]) + text


NAMES = {"of the static table": b"\x04", "plain": b"\x00" + plain(b":path"), "coded": b"\x00\x84\xb9X\xd3?"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("value", "is_text"),
    [
        (plain(b"/inference.GRPCInferenceService/ModelInfer"), True),
        (plain("/\u00e9".encode()), True),
        (plain(b"/\xff"), False),
        (plain(b"/\xc3("), False),
        *((huffman("/aenIXZ!+#$}^<{"[:end]), True) for end in range(1, 16)),
        *((huffman("/a" + each), False) for each in ("\\", "\xc3", "\xff", "\x80", "\n")),
        (huffman("\xff/a"), False),
        # Padding of a whole byte.
        (b"\x83" + huffman("/a")[1:] + b"\xff", False),
    ],
)
def test_a_path_must_be_text(name: str, value: bytes, is_text: bool) -> None:
    """grpc.aio stops serving all connections at a path that it cannot decode."""
    if is_text:
        HeadSizes().size_of(NAMES[name] + value)
        return
    with pytest.raises(MalformedError):
        HeadSizes().size_of(NAMES[name] + value)


def test_a_name_that_is_remembered_is_still_that_of_the_path() -> None:
    sizes = HeadSizes()
    sizes.size_of(b"\x40" + plain(b":path") + plain(b"/x"))
    with pytest.raises(MalformedError):
        sizes.size_of(b"\x7e" + plain(b"/\xff"))


def test_other_headers_may_have_any_bytes() -> None:
    """Values of names that end in -bin are sent as they are between gRPC's C libraries."""
    assert HeadSizes().size_of(b"\x00" + plain(b"a-bin") + plain(b"\x00\xff")) == 7


def test_long_paths_in_huffman_coding_are_refused() -> None:
    with pytest.raises(MalformedError):
        HeadSizes().size_of(b"\x04\xff\x80\x20" + b"\x18" * 4223)
