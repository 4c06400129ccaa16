import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from triune.core.datatypes import Array, DataType
from triune.core.errors import (
    InternalError,
    InvalidArgumentError,
    NoMemoryError,
    PayloadTooLargeError,
    TriuneError,
    UnavailableError,
)
from triune.core.tensors import Signature, TensorSpec
from triune.hosting import memory
from triune.hosting.channel import Channel
from triune.hosting.memory import Reader, Writer, unlinked_memory
from triune.hosting.messages import from_error, from_signature, to_error, to_signature


@pytest.fixture(params=["memfd", "unlinked"])
def ends(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Channel, Channel]]:
    """Both ends of a channel, over both kinds of memory: Linux's, and what macOS has instead."""
    if request.param == "unlinked":
        monkeypatch.setattr(memory, "new_memory", unlinked_memory)
    ours, theirs = map(Channel, socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


def sent(ends: tuple[Channel, Channel], tensors: Mapping[str, Array]) -> Mapping[str, Array]:
    ends[0].send({}, tensors)
    return ends[1].receive()[1]


def example(datatype: DataType, shape: Sequence[int]) -> Array:
    size = int(np.prod(shape))
    if datatype is DataType.BYTES:
        array = np.empty(tuple(shape), np.object_)
        array.reshape(-1)[:] = [bytes(index % 7) + b"\xff" for index in range(size)]
        return array
    return (np.arange(size) % 2).reshape(shape).astype(datatype.dtype)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (5,), (2, 1, 3)], ids=str)
@pytest.mark.parametrize("datatype", DataType)
def test_every_datatype_and_shape(ends: tuple[Channel, Channel], datatype: DataType, shape: Sequence[int]) -> None:
    given = example(datatype, shape)
    found = sent(ends, {"first": np.ones(3, np.int8), "x": given, "last": np.ones(3, np.int8)})
    assert list(found) == ["first", "x", "last"]
    assert found["x"].dtype == given.dtype
    assert found["x"].shape == given.shape
    assert found["x"].tolist() == given.tolist()
    assert found["last"].tolist() == [1, 1, 1]


def test_arrays_that_are_not_contiguous(ends: tuple[Channel, Channel]) -> None:
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    for given in (base.T, base[::-1], base[:, ::2], np.broadcast_to(np.float32(3), (2, 3))):
        np.testing.assert_array_equal(sent(ends, {"x": given})["x"], given)


def test_what_is_seen_cannot_be_written_to(ends: tuple[Channel, Channel]) -> None:
    found = sent(ends, {"x": np.ones(4, np.float32)})["x"]
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 2


def test_memory_is_used_again_and_grows(ends: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    make = memory.new_memory

    def counting(size_bytes: int) -> int:
        sizes.append(size_bytes)
        return make(size_bytes)

    monkeypatch.setattr(memory, "new_memory", counting)
    for size in (10, 20_000, 30_000, 10, 40_000, 30_000):
        given = np.full(size, size, np.float32)
        assert sent(ends, {"x": given})["x"].tobytes() == given.tobytes()
    assert sizes == [1 << 16, 1 << 17, 1 << 18]


def test_memory_that_one_large_message_took_is_not_kept() -> None:
    writer = Writer()
    sizes: list[int] = []
    for num_bytes in (40 << 20, 17 << 20, 16 << 20, 1, 40 << 20):
        _, descriptor = writer.write({"x": np.zeros(num_bytes, np.uint8)})
        sizes.append(0 if descriptor is None else os.fstat(descriptor).st_size)
        if descriptor is not None:
            os.close(descriptor)
    assert sizes == [64 << 20, 0, 16 << 20, 0, 64 << 20]


def test_no_descriptor_and_no_name_is_left(ends: tuple[Channel, Channel]) -> None:
    sent(ends, {"x": np.ones(10)})
    folder = Path("/dev/shm")
    names = set(folder.iterdir()) if folder.exists() else set()
    num_open = len(list(Path("/dev/fd").iterdir()))
    for size in (1 << 16, 1 << 17, 1 << 18):
        sent(ends, {"x": np.ones(size)})
    assert len(list(Path("/dev/fd").iterdir())) == num_open
    assert (set(folder.iterdir()) if folder.exists() else set()) == names


def test_messages_longer_than_a_sockets_buffer(ends: tuple[Channel, Channel]) -> None:
    tensors = {f"tensor {index}": np.array([index]) for index in range(20_000)}
    sender = threading.Thread(target=ends[0].send, args=({"text": "x" * 1_000_000}, tensors))
    sender.start()
    message, found = ends[1].receive()
    sender.join()
    assert message == {"text": "x" * 1_000_000}
    assert [int(array[0]) for array in found.values()] == list(range(20_000))


def test_the_end_of_the_other_side_is_told(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    theirs.connection.sendall(b"\x09\x00")
    theirs.close()
    with pytest.raises(EOFError):
        ours.receive()
    with pytest.raises(OSError):
        ours.send({}, {"x": np.ones(3)})


@pytest.mark.parametrize("body", [b"{}", b"[]", b"nonsense", b'{"tensors": 3'])
def test_what_is_no_message_is_refused(ends: tuple[Channel, Channel], body: bytes) -> None:
    ends[1].connection.sendall(len(body).to_bytes(4, "little") + body)
    with pytest.raises(InternalError, match="an invalid message"):
        ends[0].receive()


@pytest.mark.parametrize(
    "layout",
    [
        ("x", "FP32", (4,), 1 << 16, 16),
        ("x", "FP32", (1 << 20,), 0, 16),
        ("x", "FP32", (4,), -64, 16),
        ("x", "FP32", (-4,), 0, 16),
        ("x", "BYTES", (3,), 0, 8),
        ("x", "BYTES", (1,), 0, 64),
        ("x", "BYTES", (1,), 0, 1 << 20),
    ],
    ids=str,
)
def test_layouts_that_lead_out_of_the_memory(layout: tuple[object, ...]) -> None:
    writer, reader = Writer(), Reader()
    _, descriptor = writer.write({"x": np.array([1], np.int64)})
    assert descriptor is not None
    reader.replace(descriptor)
    os.close(descriptor)
    with pytest.raises(InternalError, match="tensor 'x'"):
        reader.view([layout])


def test_what_cannot_be_sent_is_refused_before_anything_is(ends: tuple[Channel, Channel]) -> None:
    text = np.array(["text", "no bytes"], np.object_)
    with pytest.raises(InternalError, match="'x' must hold bytes"):
        ends[0].send({}, {"x": text})
    with pytest.raises(InvalidArgumentError, match="complex128"):
        ends[0].send({}, {"x": np.ones(2, np.complex128)})
    assert sent(ends, {"y": np.ones(2)})["y"].tolist() == [1, 1]


def test_memory_that_is_not_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: int) -> int:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(memory, "new_memory", none)
    with pytest.raises(UnavailableError, match=r"no 131072 bytes of shared memory.*Cannot allocate"):
        Writer().write({"x": np.ones(10_000)})


class _OwnError(InvalidArgumentError):
    """A model's own class."""


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (InvalidArgumentError("x is wrong"), InvalidArgumentError, "x is wrong"),
        (PayloadTooLargeError("too much"), PayloadTooLargeError, "too much"),
        (_OwnError("x is odd"), InvalidArgumentError, "x is odd"),
        (
            MemoryError(),
            NoMemoryError,
            "there is not the memory for this request now; send it later, or send less at once",
        ),
        (KeyError("nobody"), InternalError, "the model failed: KeyError: 'nobody'"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_cross_by_class_and_message(error: Exception, kind: type[TriuneError], message: str) -> None:
    found = to_error(from_error(error))
    assert type(found) is kind
    assert str(found) == message


@pytest.mark.parametrize("name", ["Exception", "annotations", "NoSuchError"])
def test_an_error_of_no_known_class_is_internal(name: str) -> None:
    assert type(to_error([name, "text"])) is InternalError


def test_signatures_cross() -> None:
    signature = Signature(
        (TensorSpec("x", DataType.BYTES, (-1, 3), ("batch", None)), TensorSpec("o", DataType.BF16, (), (), True)),
        (TensorSpec("y", DataType.FP32, ()),),
        max_batch_size=7,
    )
    assert to_signature(from_signature(signature)) == signature
