"""Read ONNX files without their large weights: these stay in the file, and tensors refer to them by offset, as external
data.

A protobuf message is a sequence of fields. Each is a key (field number * 8 + wire type), then a value. Nested messages,
bytes and packed numbers are written as a length and that many bytes (protobuf.dev/programming-guides/encoding). The
field numbers are those of onnx.proto.
"""

import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto

from triune.core.files import open_file
from triune.graph.weight_files import LARGE_BYTES

_WITHIN: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph"},
}
"""For each message, the fields that may contain weights, and the kind of message in the field. Weights in functions are
read.
"""

_DATA_TYPE, _RAW_DATA, _DATA_LOCATION = 2, 9, 14
_NUMBERS: Mapping[int, int] = {4: TensorProto.FLOAT, 10: TensorProto.DOUBLE}
"""The fields of a tensor with packed numbers whose encoding equals the tensor's raw bytes, and their element types."""

_LISTS = (7, 8, 9)
"""Fields of an attribute that is a list of numbers or strings, so that it has no tensor."""

_VARINT, _64_BITS, _LENGTH, _32_BITS = 0, 1, 2, 5


def read_light(path: Path) -> ModelProto:
    """Read a model. Tensors of at least LARGE_BYTES become external data whose location is `path`.

    Constant nodes with such tensors become initializers.

    Args:
        path: the absolute path of the file.

    Raises:
        OSError: the file cannot be read.
        DecodeError: the file is not a protobuf message.
    """
    with open_file(path) as file:
        if os.fstat(file.fileno()).st_size < LARGE_BYTES:
            model = ModelProto.FromString(file.read())
        else:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                light = _File(data, str(path)).light("model", 0, len(data))
                model = ModelProto.FromString(data[:] if light is None else light)
    _make_initializers(model)
    return model


class _File:
    """The bytes of a model's file, mapped into memory."""

    def __init__(self, data: mmap.mmap, location: str) -> None:
        self._data = data
        self._location = location

    def light(self, kind: str, start: int, end: int) -> bytes | None:
        """The bytes of a message of the kind `kind` ("graph") without its large weights; None if it has no large
        weights.
        """
        within = _WITHIN[kind]
        pieces: list[bytes] = []
        copied = start
        for number, wire, begin, value, after in self._fields(start, end):
            if kind == "attribute" and number in _LISTS:
                return None
            inner = within.get(number)
            if inner is None or wire != _LENGTH or after - value < LARGE_BYTES:
                continue
            text = self._tensor(value, after) if inner == "tensor" else self.light(inner, value, after)
            if text is not None:
                pieces += [self._data[copied:begin], _field(number, text)]
                copied = after
        return b"".join([*pieces, self._data[copied:end]]) if pieces else None

    def _tensor(self, start: int, end: int) -> bytes | None:
        """The bytes of a tensor that refers to its data as external data; None if the data are not raw, or external
        already.
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
            others.append(self._data[begin:after])
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
        number = shift = 0
        while offset < len(self._data) and shift < 70:
            byte = self._data[offset]
            number |= (byte & 127) << shift
            offset, shift = offset + 1, shift + 7
            if byte < 128:
                return number, offset
        raise DecodeError("a number has no end")


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
