"""Compute how large the heads (headers) of calls are when they are decoded. Source: RFC 7541 (HPACK).

A head may refer to an earlier header by one byte, so that 15 KB become 60 MB. gRPC's library decodes all headers, even
those of calls that it then refuses.
"""

from collections import deque
from typing import Final

from triune.frontends.kserve.grpc.relay import frames

_PADDED, _PRIORITY = 0x8, 0x20
_PRIORITY_BYTES: Final = 5

_NUM_STATIC: Final = 61
"""The number of entries of HPACK's static table (RFC 7541, appendix A)."""
_STATIC_BYTES: Final = 48
"""An upper bound for the size, in bytes, of an entry of HPACK's static table, and so of an entry's name."""

_MOST_ENTRIES: Final = 128
"""The most entries that HPACK's dynamic table of 4,096 bytes can have: each entry counts 32 bytes in addition to its
name and value (RFC 7541, section 4.1).
"""

_MOST_KNOWN: Final = 32

_INDEXED, _INDEXING, _RESIZE = 0x80, 0x40, 0x20


class MalformedError(Exception):
    """A head ends within a header, or refers to a header that was never sent."""


def block_of(data: bytes, start: int, end: int) -> bytes:
    """The header block in the frames from `start` to `end`: HEADERS, and the CONTINUATION frames that follow it.

    Raises:
        MalformedError: the padding is longer than the frame.
    """
    parts: list[bytes] = []
    while start < end:
        high, low, _, flags, _ = frames.read_head(data, start)
        first, last = start + frames.HEAD_BYTES, start + frames.HEAD_BYTES + (high << 8 | low)
        start = last
        if not parts:
            if flags & _PADDED:
                last -= data[first]
                first += 1
            if flags & _PRIORITY:
                first += _PRIORITY_BYTES
            if first > last:
                raise MalformedError
        parts.append(data[first:last])
    return parts[0] if len(parts) == 1 else b"".join(parts)


class HeadSizes:
    """Estimates the decoded sizes of the header blocks of one connection. It must see all of them, in order.

    HPACK numbers the entries of its dynamic table from the newest on. So this class need not know which old entries
    were evicted.
    """

    def __init__(self) -> None:
        self._entries: deque[tuple[int, int]] = deque(maxlen=_MOST_ENTRIES)
        self._known: dict[bytes, int] = {}

    def size_of(self, block: bytes) -> int:
        """An upper bound for the decoded size of all names and values of a header block, in bytes. It is exact but for
        strings in Huffman coding, which count 1.6 times their encoded size, the most that they can decode to, and for
        entries of the static table, each of which counts `_STATIC_BYTES`.

        Raises:
            MalformedError: the block is not valid.
        """
        size = self._known.get(block)
        if size is not None:
            return size
        size, is_changed = 0, False
        at = 0
        try:
            while at < len(block):
                first = block[at]
                if first & _INDEXED:
                    index, at = _integer(block, at, 0x7F)
                    size += self._entry(index)[1]
                elif first & _INDEXING == 0 and first & _RESIZE:
                    _, at = _integer(block, at, 0x1F)
                else:
                    is_added = bool(first & _INDEXING)
                    index, at = _integer(block, at, 0x3F if is_added else 0x0F)
                    if index:
                        name = self._entry(index)[0]
                    else:
                        name, at = _string(block, at)
                    value, at = _string(block, at)
                    size += name + value
                    if is_added:
                        self._entries.appendleft((name, name + value))
                        is_changed = True
        except IndexError:
            raise MalformedError from None
        if at > len(block):
            raise MalformedError
        if is_changed:
            self._known.clear()
        elif len(self._known) < _MOST_KNOWN:
            self._known[block] = size
        return size

    def _entry(self, index: int) -> tuple[int, int]:
        """The table entry with this index: the size of its name, and that of name and value together, in bytes."""
        if not index:
            raise MalformedError
        return (_STATIC_BYTES, _STATIC_BYTES) if index <= _NUM_STATIC else self._entries[index - _NUM_STATIC - 1]


def _integer(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """Read an integer at `at`; `mask` has the bits of its first byte that belong to it (RFC 7541, section 5.1).

    Returns:
        the integer, and the offset of the byte after it.
    """
    value = block[at] & mask
    at += 1
    if value < mask:
        return value, at
    for shift in range(0, 35, 7):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise MalformedError


def _string(block: bytes, at: int) -> tuple[int, int]:
    """Read how many bytes the string at `at` has when it is decoded (RFC 7541, section 5.2).

    The shortest Huffman code has 5 bits, so a string in Huffman coding counts 8/5 times its encoded size, the most that
    it can decode to.

    Returns:
        the size, and the offset of the byte after the string.
    """
    is_coded = block[at] & 0x80
    length, at = _integer(block, at, 0x7F)
    return (length * 8 // 5 if is_coded else length), at + length
