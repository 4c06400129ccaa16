"""Read ONNX files without their large weights: these stay in the file, and tensors refer to them by offset, as external
data.

While protobuf parses a message, no other thread of the process runs: 0.4 s for one of 500 MB. So only the message
without its large weights is parsed, in parts.

A protobuf message is a sequence of fields. Each is a key (field number * 8 + wire type), then a value. Nested messages,
bytes and packed numbers are written as a length and that many bytes (protobuf.dev/programming-guides/encoding). The
field numbers are those of onnx.proto.
"""

import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto

from triune.core.files import open_file, read_file
from triune.graph.weight_files import LARGE_BYTES

_WITHIN: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph"},
}
"""For each message, the fields that may contain weights, and the kind of message in the field. Weights in functions are
read in full.
"""

_DATA_TYPE, _RAW_DATA, _DATA_LOCATION = 2, 9, 14
_NUMBERS: Mapping[int, int] = {4: TensorProto.FLOAT, 10: TensorProto.DOUBLE}
"""The fields of a tensor with packed numbers whose encoding equals the tensor's raw bytes, and their element types."""

_LISTS = (7, 8, 9)
"""Fields of an attribute that is a list of numbers or strings, so that it has no tensor."""

_VARINT, _64_BITS, _LENGTH, _32_BITS = 0, 1, 2, 5

_PART_BYTES = 1 << 18
"""The size of the parts in which a file is parsed. Protobuf parses some 250 MB of nodes a second, so a part takes a
millisecond.
"""

_LONGEST_VARINT = 10

_MOST_NESTED = 100
"""The depth to which protobuf reads nested messages."""

_MOST_FIELDS = 256
"""A tensor with more fields than this has a field for each element, as tensors of strings have. It is not searched."""

_WINDOW_BYTES = 1 << 14
"""The number of bytes of the file that are read at once to find its fields."""


def read_light(path: Path, max_bytes: int | None = None) -> ModelProto:
    """Read a model. Tensors of at least LARGE_BYTES become external data whose location is `path`.

    Constant nodes with such tensors become initializers.

    Args:
        path: the absolute path of the file.
        max_bytes: the largest file that is read; None sets no limit.

    Raises:
        OSError: the file cannot be read, is not regular, or is larger.
        DecodeError: the file is not a protobuf message.
    """
    model = ModelProto()
    if path.stat().st_size < LARGE_BYTES:
        # A file of fewer than LARGE_BYTES has no large weights, so it is read whole. The limit ends the reading of
        # special files, which report the size 0 and may have no end.
        model.MergeFromString(read_file(path, LARGE_BYTES if max_bytes is None else max_bytes))
        _make_initializers(model)
        return model
    with open_file(path) as file:
        descriptor = file.fileno()
        size = os.fstat(descriptor).st_size
        if max_bytes is not None and size > max_bytes:
            raise OSError(errno.EFBIG, f"it has {size} bytes; at most {max_bytes} are read", f"{path}")
        _File(descriptor, size, f"{path}").read_into(model)
    _make_initializers(model)
    return model


class _File:
    """A model's file. It is read rather than memory-mapped: if a mapped file is cut short, the process ends."""

    def __init__(self, descriptor: int, size: int, location: str) -> None:
        self._descriptor = descriptor
        self._size = size
        self._location = location
        self._window = b""
        self._window_start = 0

    def read_into(self, model: ModelProto) -> None:
        """Merge the file into an empty model, in parts. protobuf allows the fields of a message to be merged in any
        parts.
        """
        others: list[bytes] = []
        for number, wire, begin, value, after in self._fields(0, self._size):
            if _WITHIN["model"].get(number) == "graph" and wire == _LENGTH and after > value:
                for part in self._parts("graph", value, after):
                    model.graph.MergeFromString(part)
            else:
                others.append(self._bytes(begin, after))
        model.MergeFromString(b"".join(others))

    def _parts(self, kind: str, start: int, end: int) -> Iterator[bytes]:
        """The bytes of a message without its large weights, in parts of whole fields."""
        pieces: list[bytes] = []
        size, copied = 0, start
        for _, begin, after, text in self._light_fields(kind, start, end, 2):
            if text is not None:
                pieces += [self._bytes(copied, begin), text]
                size += sum(map(len, pieces[-2:]))
                copied = after
            if size + after - copied >= _PART_BYTES:
                yield b"".join([*pieces, self._bytes(copied, after)])
                pieces, size, copied = [], 0, after
        yield b"".join([*pieces, self._bytes(copied, end)])

    def _light(self, kind: str, start: int, end: int, depth: int) -> bytes | None:
        """The bytes of a message of the kind `kind` ("graph") without its large weights; None if it has no large
        weights.
        """
        if depth > _MOST_NESTED:
            raise DecodeError(f"messages are nested more than {_MOST_NESTED} deep")
        pieces: list[bytes] = []
        copied = start
        for number, begin, after, text in self._light_fields(kind, start, end, depth + 1):
            if kind == "attribute" and number in _LISTS:
                return None
            if text is not None:
                pieces += [self._bytes(copied, begin), text]
                copied = after
        return b"".join([*pieces, self._bytes(copied, end)]) if pieces else None

    def _light_fields(
        self, kind: str, start: int, end: int, depth: int
    ) -> Iterator[tuple[int, int, int, bytes | None]]:
        """For each field of a message, yield its number, its offset, the offset of the next field, and its bytes
        without large weights. The bytes are None if the field has no large weights.
        """
        within = _WITHIN[kind]
        for number, wire, begin, value, after in self._fields(start, end):
            inner = within.get(number)
            text = None
            if inner is not None and wire == _LENGTH and after - value >= LARGE_BYTES:
                text = self._tensor(value, after) if inner == "tensor" else self._light(inner, value, after, depth)
            yield number, begin, after, None if text is None else _field(number, text)

    def _tensor(self, start: int, end: int) -> bytes | None:
        """The bytes of the tensor with its data left out, so that it refers to the file as external data. None if the
        data are external already, or are not in one field of raw bytes.
        """
        data_type, offsets, others = 0, list[tuple[int, int, int]](), list[bytes]()
        for number, wire, begin, value, after in self._fields(start, end):
            if number in (_RAW_DATA, *_NUMBERS) and wire == _LENGTH:
                offsets.append((number, value, after))
                continue
            if number == _DATA_TYPE:
                data_type, _ = self._varint(value)
            if number == _DATA_LOCATION:
                return None
            others.append(self._bytes(begin, after))
            if len(others) > _MOST_FIELDS:
                return None
        if len(offsets) != 1 or _NUMBERS.get(offsets[0][0], data_type) != data_type:
            return None
        _, value, after = offsets[0]
        tensor = TensorProto(data_location=TensorProto.EXTERNAL)
        entries = {"location": self._location, "offset": str(value), "length": str(after - value)}
        for key, text in entries.items():
            tensor.external_data.add(key=key, value=text)
        return b"".join([*others, tensor.SerializeToString()])

    def _fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
        """Yield, for each field, its number, its wire type, and the offsets of the field, of its value and of the next
        field.
        """
        offset = start
        while offset < end:
            key, value = self._varint(offset)
            number, wire = key >> 3, key & 7
            if not number:
                # Field number 0 is invalid. Without this check, a large file of zeros would be read two bytes at a
                # time.
                raise DecodeError("a field has the number 0")
            if wire == _VARINT:
                _, after = self._varint(value)
            elif wire == _LENGTH:
                length, value = self._varint(value)
                after = value + length
            elif wire in (_64_BITS, _32_BITS):
                after = value + (8 if wire == _64_BITS else 4)
            else:
                raise DecodeError(f"a field has the wire type {wire}, which ONNX does not use")
            if after > end:
                raise DecodeError("a field goes beyond its message")
            yield number, wire, offset, value, after
            offset = after

    def _varint(self, offset: int) -> tuple[int, int]:
        """Read a varint (7 bits in each byte, the lowest first); returns it and the offset after it."""
        at = offset - self._window_start
        if not 0 <= at < len(self._window) - _LONGEST_VARINT:
            self._window = self._bytes(offset, min(offset + _WINDOW_BYTES, self._size))
            self._window_start, at = offset, 0
        number = shift = 0
        for byte in self._window[at : at + _LONGEST_VARINT]:
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number, offset + shift // 7
        raise DecodeError("a number has no end")

    def _bytes(self, start: int, end: int) -> bytes:
        """The bytes of the file from one offset to another. Raises DecodeError if it was cut short meanwhile."""
        parts: list[bytes] = []
        while start < end and (part := os.pread(self._descriptor, end - start, start)):
            parts.append(part)
            start += len(part)
        if start < end:
            raise DecodeError("the file was cut short")
        return b"".join(parts)


def _field(number: int, value: bytes) -> bytes:
    return b"".join([_varint_of(number << 3 | _LENGTH), _varint_of(len(value)), value])


def _varint_of(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)


def _make_initializers(model: ModelProto) -> None:
    """Turn Constant nodes with external data into initializers, the only tensors whose external data libraries load."""
    graph = model.graph
    for offset in reversed(range(len(graph.node))):
        node = graph.node[offset]
        for attribute in node.attribute:
            if node.op_type == "Constant" and not node.domain and attribute.t.data_location == TensorProto.EXTERNAL:
                tensor = graph.initializer.add()
                tensor.CopyFrom(attribute.t)
                tensor.name = node.output[0]
                del graph.node[offset]
                break
