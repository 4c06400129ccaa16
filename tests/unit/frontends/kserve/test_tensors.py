import struct
import tracemalloc

import ml_dtypes
import numpy as np
import pytest

from triune.core.datatypes import DataType
from triune.core.errors import InternalError, InvalidArgumentError
from triune.frontends.kserve.tensors import decode_raw, encode_raw, num_elements


def test_known_bytes_decode_to_known_values() -> None:
    data = struct.pack("<4i", 1, -2, 3, 2**31 - 1)
    assert decode_raw("x", DataType.INT32, (2, 2), data).tolist() == [[1, -2], [3, 2**31 - 1]]
    assert decode_raw("x", DataType.BF16, (1,), b"\x80\x3f").astype(np.float32).tolist() == [1.0]
    assert decode_raw("x", DataType.BYTES, (2,), b"\x02\0\0\0ab\0\0\0\0").tolist() == [b"ab", b""]
    assert decode_raw("x", DataType.FP32, (), b"\0\0\x80\x3f").shape == ()


def test_the_array_is_a_read_only_view_at_any_alignment() -> None:
    buffer = bytearray(b"?" + struct.pack("<3f", 1, 2, 3))
    array = decode_raw("x", DataType.FP32, (3,), memoryview(buffer)[1:])
    assert array.tolist() == [1, 2, 3]
    assert not array.flags.writeable
    assert not array.flags.owndata
    buffer[1:5] = struct.pack("<f", 9)
    assert array[0] == 9


@pytest.mark.parametrize("size", [0, 3, 11, 13])
def test_a_wrong_size_names_tensor_expected_and_found(size: int) -> None:
    with pytest.raises(
        InvalidArgumentError, match=rf"^input byte size mismatch for input 'x'\. Expected 12, got {size}: FP32\[3\]"
    ):
        decode_raw("x", DataType.FP32, (3,), bytes(size))


def test_every_byte_but_0_is_true() -> None:
    assert decode_raw("x", DataType.BOOL, (2,), b"\0\1").tolist() == [False, True]
    assert decode_raw("x", DataType.BOOL, (0, 2), b"").shape == (0, 2)
    array = decode_raw("x", DataType.BOOL, (2, 2), memoryview(b"\x00\x02\xff\x01"))
    assert array.view(np.uint8).tolist() == [[0, 1], [1, 1]], "numpy and the runtimes know no other true than 1"
    assert not array.flags.writeable


@pytest.mark.parametrize(
    ("shape", "data", "message"),
    [
        ((1,), b"", "at least 4 bytes"),
        ((2,), b"\0\0\0\0", "at least 8 bytes"),
        ((2,), b"\3\0\0\0abc\0", "ends after 8 bytes, within element 1"),
        ((1,), b"\4\0\0\0abc", "claims 4 bytes, but 3 are left"),
        ((1,), b"\xff\xff\xff\xff", "claims 4294967295 bytes"),
        ((1,), b"\1\0\0\0ab", "^unexpected number of string elements 2 for inference input .* 5 bytes, but 6 came"),
        ((0,), b"\0\0\0\0", "^unexpected number of string elements 1 .* expecting 0: they take 0 bytes, but 4 came"),
    ],
)
def test_broken_bytes_elements(shape: tuple[int, ...], data: bytes, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        decode_raw("x", DataType.BYTES, shape, data)


def test_a_claim_of_a_huge_shape_allocates_nothing() -> None:
    tracemalloc.start()
    try:
        for datatype in DataType:
            with pytest.raises(InvalidArgumentError):
                decode_raw("x", datatype, (2**31, 2**20), bytes(64))
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, -1), "not -1"),
        ((2**60,), "^byte size overflow for input"),
        ((2**40, 2**40), "causes total element count to exceed maximum size of"),
        ((0, 2**60), "^byte size overflow"),
        ((0, 2**40, -1), "not -1"),
        ((1,) * 65, "65 dimensions"),
        ((0,) * 65, "65 dimensions"),
    ],
)
def test_impossible_shapes(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        num_elements("x", shape)


def test_num_elements() -> None:
    assert num_elements("x", ()) == 1
    assert num_elements("x", (2, 3, 4)) == 24
    assert num_elements("x", (2, 0, 4)) == 0
    assert num_elements("x", (1,) * 64) == 1


@pytest.mark.parametrize("rows", [3, 30_000])
def test_encode_takes_any_layout(rows: int) -> None:
    array = np.arange(rows * 4, dtype=np.int64).reshape(rows, 4)
    for each in (array, array.T, array[::-1, ::2], np.asfortranarray(array), array[:0]):
        data = encode_raw(each)
        assert np.array_equal(decode_raw("x", DataType.INT64, each.shape, data), each)


def test_a_large_contiguous_array_is_not_copied() -> None:
    for dtype in (np.float32, ml_dtypes.bfloat16, np.bool_):
        array = np.ones((1000, 100), dtype)
        view = np.frombuffer(encode_raw(array), np.uint8)
        assert np.shares_memory(view, array)
        assert view.nbytes == array.nbytes


def test_what_cannot_be_encoded() -> None:
    with pytest.raises(InvalidArgumentError, match="complex64"):
        encode_raw(np.ones(3, np.complex64))
    with pytest.raises(InternalError, match="element 1 of a BYTES tensor is a str"):
        encode_raw(np.array([b"a", "b"], np.object_))
