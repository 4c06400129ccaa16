import numpy as np
import pytest

from triune.core.errors import InternalError, InvalidArgumentError
from triune.runtimes.arrays import ordered, packed, to_bytes, to_text


def test_a_packed_array_is_not_copied() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    read_only = np.frombuffer(b"abcd" + array.tobytes(), np.float32, offset=4)
    for given in (array, read_only, array[1:], np.float32(3) * np.ones(()), np.empty((0, 3))):
        assert packed(given) is given


@pytest.mark.parametrize("offset", [1, 2, 3])
def test_an_unaligned_view_is_copied(offset: int) -> None:
    view = np.frombuffer(b"\0" * offset + np.arange(3, dtype=np.float32).tobytes(), np.float32, offset=offset)
    assert not view.flags.aligned
    found = packed(view)
    assert found.flags.aligned
    assert found.tolist() == [0, 1, 2]


def test_bytes_are_aligned_anywhere() -> None:
    view = np.frombuffer(b"\0\x01\x02", np.uint8, offset=1)
    assert packed(view) is view


def test_other_orders_become_c_order() -> None:
    base = np.arange(6).reshape(2, 3)
    for view in (base.T, base[:, ::2], base[::-1], np.broadcast_to(np.int64(4), (2, 2))):
        found = packed(view)
        assert found.flags.c_contiguous
        assert found.shape == view.shape
        np.testing.assert_array_equal(found, view)


@pytest.mark.parametrize("shape", [(), (0,), (4,), (2, 2), (2, 0, 3)])
def test_text_and_bytes_are_inverse(shape: tuple[int, ...]) -> None:
    size = int(np.prod(shape))
    given = np.empty(shape, np.object_)
    given.reshape(-1)[:] = [f"é{index}\0".encode() for index in range(size)]
    text = to_text("x", given, None)
    assert text.shape == shape
    assert all(type(element) is str for element in text.flat)
    back = to_bytes(text)
    assert back.dtype == np.object_
    assert back.tolist() == given.tolist()


def test_to_bytes_takes_numpys_own_strings() -> None:
    assert to_bytes(np.array(["a", "é"])).tolist() == [b"a", "é".encode()]


def test_what_is_not_text_is_named() -> None:
    with pytest.raises(InvalidArgumentError, match=r"input 'names', element 1 is not UTF-8.*at byte 1"):
        to_text("names", np.array([b"ok", b"a\xc3"], np.object_), "StringNormalizer")


def test_a_runtime_that_gives_too_few_outputs_is_a_defect() -> None:
    with pytest.raises(InternalError):
        ordered(["a", "b"], [np.ones(1)])
