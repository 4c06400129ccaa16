"""Compute how large the heads (headers) of calls are when they are decoded. Source: RFC 7541 (HPACK).

A head may refer to an earlier header by one byte, so that 15 KB become 60 MB. gRPC's library decodes all headers, even
those of calls that it then refuses. And `grpc.aio` stops serving all connections at a path that is not UTF-8, so such a
path is found here, too.
"""

from collections import deque
from typing import Final, NamedTuple

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

_PATHS: Final = (4, 5)
"""The indices of the entries of HPACK's static table whose name is `:path`; both of their values are ASCII."""
_PATH: Final = (b":path", b"\xb9X\xd3?")
"""The name `:path`, plain and in Huffman coding."""

_CODES: Final = (
    *((10 << 10, 5), (26 << 9, 6), (32 << 8, 7), (6 << 7, 8), (5 << 5, 10), (3 << 4, 11), (2 << 3, 12)),
    *((6 << 2, 13), (2 << 1, 14), (3, 15)),
)
"""The codes of HPACK's Huffman coding (RFC 7541, appendix B) that have at most 15 bits: those of printable ASCII except
the backslash. Codes of one length follow each other, shorter ones first. For each length: how many of the numbers of 15
bits begin with a code of that length, and the length in bits. Longer codes begin with 15 ones.
"""
_CODE_BITS: Final = 15
_CODE_MASK: Final = (1 << _CODE_BITS) - 1
_MOST_PADDING: Final = 7
_MOST_CODED_BYTES: Final = 1024
"""The longest path in Huffman coding, in bytes: names of methods are shorter, and to read it takes time on the loop."""

_INDEXED, _INDEXING, _RESIZE = 0x80, 0x40, 0x20


class MalformedError(Exception):
    """A head ends within a header, refers to a header that was never sent, or has a path that is not text."""


class _Entry(NamedTuple):
    """A header of a table: the size of its name, and that of name and value together, in bytes, and whether its name is
    `:path`.
    """

    name_bytes: int
    num_bytes: int
    is_path: bool


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
        self._entries: deque[_Entry] = deque(maxlen=_MOST_ENTRIES)
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
                    size += self._entry(index).num_bytes
                elif first & _INDEXING == 0 and first & _RESIZE:
                    _, at = _integer(block, at, 0x1F)
                else:
                    is_added = bool(first & _INDEXING)
                    index, at = _integer(block, at, 0x3F if is_added else 0x0F)
                    if index:
                        name, _, is_path = self._entry(index)
                    else:
                        begin = at
                        name, at = _string(block, at)
                        is_path = block[begin + 1 : at] in _PATH
                    begin = at
                    value, at = _string(block, at)
                    if is_path and not _is_text(block[begin:at]):
                        raise MalformedError
                    size += name + value
                    if is_added:
                        self._entries.appendleft(_Entry(name, name + value, is_path))
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

    def _entry(self, index: int) -> _Entry:
        """The table entry with this index."""
        if not index:
            raise MalformedError
        if index <= _NUM_STATIC:
            return _Entry(_STATIC_BYTES, _STATIC_BYTES, index in _PATHS)
        return self._entries[index - _NUM_STATIC - 1]


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


def _is_text(string: bytes) -> bool:
    """Whether a string of a header, with its length in front, is UTF-8. In Huffman coding it must be printable ASCII
    without backslashes, as the path of every gRPC method is.
    """
    length, at = _integer(string, 0, 0x7F)
    value = string[at : at + length]
    if string[0] & 0x80:
        return _is_printable(value)
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_printable(coded: bytes) -> bool:
    """Whether a string in Huffman coding has only codes of `_CODES`, and ends with at most 7 ones as padding."""
    if len(coded) > _MOST_CODED_BYTES:
        return False
    left = 8 * len(coded)
    # Ones behind the end, so that the last code is followed by enough bits.
    bits = int.from_bytes(coded) << _CODE_BITS | _CODE_MASK
    while left > 0:
        begin = bits >> left & _CODE_MASK
        for count, length in _CODES:
            if begin < count:
                left -= length
                break
            begin -= count
        else:
            return left <= _MOST_PADDING
    return left == 0
