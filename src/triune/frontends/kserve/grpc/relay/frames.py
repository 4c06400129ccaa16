"""The headers of HTTP/2 frames. Source: RFC 9113, sections 4.1 and 6."""

import struct
from typing import Final

PREFACE_BYTES: Final = 24
"""The length in bytes of the HTTP/2 preface, which a client sends before its first frame."""

HEAD_BYTES: Final = 9

DATA: Final = 0x0
HEADERS: Final = 0x1
RST_STREAM: Final = 0x3
GOAWAY: Final = 0x7
CONTINUATION: Final = 0x9

END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4

CANCEL: Final = 0x8
ENHANCE_YOUR_CALM: Final = 0xB
"""The HTTP/2 error code for too much load. gRPC's clients report it as RESOURCE_EXHAUSTED."""

MAX_BYTES: Final = HEAD_BYTES + (1 << 14)
"""The largest frame that gRPC's library accepts from clients."""

MAX_CONTINUATIONS: Final = 16
"""The largest number of frames that may continue the headers of one call. This many frames of the largest size
would hold more headers than a call may have.
"""

# A frame's header: the length of its content in 24 bits (the high 16 bits, then the low 8 bits), its type, its flags,
# and the stream's number.
_HEAD = struct.Struct(">HBBBI")
_FLAGS_AT = 4
_LITERAL = b"\0"

read_head = _HEAD.unpack_from
"""Read (high bits of the length, low bits, kind, flags, stream) at a position."""


def find_end(data: bytes, start: int, max_bytes: int) -> tuple[int, int]:
    """Find the end of a header block: a HEADERS frame at `start`, and the CONTINUATION frames that follow it.

    Returns:
        where the last of these frames begins and ends; (0, 0) if it has not arrived yet; (0, -1) if there are too many
        frames or they have more than `max_bytes`.
    """
    position = start
    for _ in range(1 + MAX_CONTINUATIONS):
        if len(data) - position < HEAD_BYTES:
            return 0, 0
        high, low, _, flags, _ = read_head(data, position)
        end = position + HEAD_BYTES + (high << 8 | low)
        if end - start > max_bytes:
            break
        if end > len(data):
            return 0, 0
        if flags & END_HEADERS:
            return position, end
        position = end
    return 0, -1


def with_header(headers: bytes, last: int, name: bytes, value: bytes) -> bytes:
    """Add a header to the end of a header block, in one more CONTINUATION frame.

    The header is written as a literal without indexing (RFC 7541, section 6.2.2), so that the HPACK tables of client
    and library stay equal.

    Args:
        headers: the frames of the header block.
        last: the offset of the last of these frames.
        name: the header's name, of less than 127 bytes.
        value: its value, of less than 127 bytes.
    """
    _, _, _, flags, stream = read_head(headers, last)
    header = b"".join((_LITERAL, len(name).to_bytes(), name, len(value).to_bytes(), value))
    continued = _HEAD.pack(0, len(header), CONTINUATION, END_HEADERS, stream)
    flags_at = last + _FLAGS_AT
    return b"".join((headers[:flags_at], (flags & ~END_HEADERS).to_bytes(), headers[flags_at + 1 :], continued, header))


def reset(stream: int, code: int) -> bytes:
    """A RST_STREAM frame, which ends one stream."""
    return _HEAD.pack(0, 4, RST_STREAM, 0, stream) + struct.pack(">I", code)


def go_away(last_stream: int, code: int, reason: bytes) -> bytes:
    """A GOAWAY frame, which ends the connection. Calls after `last_stream` did not start, so clients may repeat
    them.
    """
    return _HEAD.pack(0, 8 + len(reason), GOAWAY, 0, 0) + struct.pack(">II", last_stream, code) + reason


def without_reason(frame: bytes) -> bytes:
    """A GOAWAY frame without the text that follows its two numbers."""
    kept = frame[HEAD_BYTES : HEAD_BYTES + 8]
    return len(kept).to_bytes(3) + frame[3:HEAD_BYTES] + kept
