"""The primitives whose meaning MLX's own functions do not have."""

from typing import Any

import numpy as np
import pytest

from triune.metal.builder import MOST_UNROLLED, MlxBuilder, product
from triune.metal.elementwise import OPS
from triune.metal.library import BF16, from_numpy, to_numpy

B = MlxBuilder()
DTYPES = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [0, 1, 300])
def test_products_of_integers_are_exact_and_wrap_around(dtype: Any, size: int) -> None:
    rng, limits = np.random.default_rng(3), np.iinfo(dtype)
    x, y = (rng.integers(limits.min, limits.max, shape, dtype, endpoint=True) for shape in ((2, 3, size), (size, 4)))
    found = to_numpy(product(from_numpy(x), from_numpy(y)))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, x @ y)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_integers_are_divided_towards_zero_and_never_end_the_process(dtype: Any) -> None:
    low = np.iinfo(dtype).min
    x = np.array([7, -7, 7, -7, low, 5], dtype)
    y = np.array([2, 2, -2, -2, -1, 0], dtype)
    found = to_numpy(OPS["Div"](from_numpy(x), from_numpy(y)))
    np.testing.assert_array_equal(found[:5], [3, -3, -3, 3, low])
    rest = to_numpy(OPS["Mod"](from_numpy(x), from_numpy(y), fmod=1))
    np.testing.assert_array_equal(rest[:5], [1, -1, 1, -1, 0])
    np.testing.assert_array_equal(to_numpy(OPS["Mod"](from_numpy(x), from_numpy(y), fmod=0))[:4], [1, 1, -1, -1])


def test_powers_of_integers_have_negative_exponents() -> None:
    x, y = np.array([2, 1, -1, -1, 3]), np.array([-1, -5, -3, -2, 4])
    np.testing.assert_array_equal(to_numpy(OPS["Pow"](from_numpy(x), from_numpy(y))), [0, 1, -1, 1, 81])


@pytest.mark.parametrize("is_largest", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint8])
def test_of_equal_elements_the_first_come_first(dtype: Any, *, is_largest: bool) -> None:
    x = np.array([[1, 3, 3, 0, 1, 3]], dtype)
    values, indices = map(to_numpy, B.top_k(from_numpy(x), 4, 1, is_largest=is_largest))
    np.testing.assert_array_equal(indices, [[1, 2, 5, 0] if is_largest else [3, 0, 4, 1]])
    np.testing.assert_array_equal(values, np.take_along_axis(x, indices, 1))


def test_more_than_all_elements_are_refused() -> None:
    with pytest.raises(ValueError, match="the first 7 of a dimension of 3 elements"):
        B.top_k(from_numpy(np.zeros((2, 3))), 7, 1, is_largest=True)


@pytest.mark.parametrize(("op", "number"), [("ReduceMax", np.iinfo(np.int16).min), ("ReduceMin", 2**15 - 1)])
def test_the_largest_of_no_elements_is_the_lowest_number(op: str, number: int) -> None:
    found = to_numpy(B.reduce(op, from_numpy(np.zeros((2, 0), np.int16)), [1], keepdims=True))
    assert (found.dtype, found.tolist()) == (np.int16, [[number], [number]])


def test_bf16_crosses_unchanged() -> None:
    x = np.array([1.5, -0.0, np.inf, 3e38], BF16)
    found = to_numpy(from_numpy(x))
    assert found.dtype == BF16
    assert found.tobytes() == x.tobytes()
    assert B.is_float(from_numpy(x))


@pytest.mark.parametrize("view", [np.arange(6)[::-1], np.arange(6).reshape(2, 3).T, np.float32(3), np.zeros((0, 2))])
def test_any_array_becomes_one_of_mlx(view: Any) -> None:
    np.testing.assert_array_equal(to_numpy(from_numpy(np.asarray(view))), view)


def test_compiled_functions_have_no_long_loops() -> None:
    builder = MlxBuilder()
    builder.begin(is_compiling=True)
    with pytest.raises(ValueError, match=f"a loop of {MOST_UNROLLED + 1} steps"):
        builder.require_short(MOST_UNROLLED + 1)
    B.require_short(MOST_UNROLLED + 1)


def test_indices_that_are_known_are_checked_once() -> None:
    builder = MlxBuilder()
    builder.begin(is_compiling=True)
    found = builder.within(from_numpy(np.array([-1, 2, -4])), 4, "an index")
    np.testing.assert_array_equal(to_numpy(found), [3, 2, 0])
    assert not builder.faults
    np.testing.assert_array_equal(to_numpy(builder.within(from_numpy(np.array([-5, 4])), 4, "an index")), [0, 3])
    ((fault, message),) = builder.faults
    assert fault.item()
    assert message == "an index is out of range: the dimension has 4 elements"
