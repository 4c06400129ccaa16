import numpy as np
import pytest

from triune.config.model_config import TensorConfig
from triune.config.reshape import reshape_to_client
from triune.config.results import MAX_CLASSIFICATION_ELEMENTS, classify
from triune.core.datatypes import DataType
from triune.core.errors import InternalError, InvalidArgumentError

SCORES = TensorConfig("scores", DataType.FP32, (4,), labels=("cat", "dog", "cow"))


def test_largest_first_with_labels_where_there_are_any() -> None:
    result = classify(np.array([[0.1, 0.7, 0.2, 0.5]], np.float32), 3, SCORES, has_batch=True)
    assert result.tolist() == [[b"0.700000:1:dog", b"0.500000:3", b"0.200000:2:cow"]]


def test_equals_keep_the_lower_index_first() -> None:
    result = classify(np.array([2, 5, 5, 1], np.int32), 2, SCORES, has_batch=False)
    assert result.tolist() == [b"5:1:dog", b"5:2:cow"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int8, np.uint64])
@pytest.mark.parametrize(
    ("length", "count"), [(5, 5), (4095, 300), (4096, 7), (5000, 624), (5000, 626), (10000, 10000)]
)
def test_the_largest_are_found_whatever_the_size(dtype: type[np.generic], length: int, count: int) -> None:
    rng = np.random.default_rng(length)
    values = rng.integers(0, rng.integers(2, 100), (3, length)).astype(dtype)
    values[1] = values[1, 0]
    if values.dtype.kind == "f":
        values[2, rng.integers(0, length, 3)] = (np.nan, np.inf, -np.inf)
    expected = [
        sorted(range(length), key=lambda at: (not np.isnan(row[at]), -float(row[at]), at))[:count] for row in values
    ]
    found = classify(values, count, TensorConfig("y", DataType.FP32, (-1,)), has_batch=True)
    assert [[int(text.split(b":")[1]) for text in row] for row in found] == expected


def test_many_short_rows() -> None:
    values = np.arange(3_000_000, dtype=np.float32).reshape(500_000, 6)
    found = classify(values, 1, TensorConfig("y", DataType.FP32, (-1,)), has_batch=True)
    assert [found[at, 0] for at in (0, 200_000, 499_999)] == [b"5.000000:5", b"1200005.000000:5", b"2999999.000000:5"]


def test_an_empty_label_is_none() -> None:
    labelled = TensorConfig("scores", DataType.FP32, (2,), labels=("", "dog"))
    assert classify(np.array([2.0, 1.0]), 2, labelled, has_batch=False).tolist() == [b"2.000000:0", b"1.000000:1:dog"]


def test_no_more_classes_than_elements() -> None:
    assert classify(np.zeros((2, 4), np.float16), 9, SCORES, has_batch=True).shape == (2, 4)


def test_unsigned_values_are_not_wrapped() -> None:
    assert classify(np.array([0, 255], np.uint8), 1, SCORES, has_batch=False).tolist() == [b"255:1:dog"]


def test_what_has_no_order_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="class result not available for output due to unsupported type"):
        classify(np.array([b"a"], np.object_), 1, TensorConfig("s", DataType.BYTES, (1,)), has_batch=False)
    with pytest.raises(InvalidArgumentError, match="at most 1000000"):
        classify(np.zeros(MAX_CLASSIFICATION_ELEMENTS + 1, np.float32), 1, SCORES, has_batch=False)
    with pytest.raises(
        InvalidArgumentError, match="^classification output tensor too large: 500001 classes for each of 2"
    ):
        classify(np.zeros((2, MAX_CLASSIFICATION_ELEMENTS), np.uint8), 500_001, SCORES, has_batch=True)


def test_output_reshape() -> None:
    output = TensorConfig("y", DataType.FP32, (-1,), reshape=(-1, 1))
    assert reshape_to_client(np.zeros((2, 7, 1)), output, has_batch=True).shape == (2, 7)


def test_rows_of_no_elements_have_no_classes() -> None:
    empty = TensorConfig("scores", DataType.FP32, (-1,))
    assert classify(np.zeros((2, 0), np.float32), 3, empty, has_batch=True).shape == (2, 0)
    assert classify(np.zeros((0,), np.float32), 3, empty, has_batch=False).shape == (0,)
    with pytest.raises(InternalError, match="without its batch dimension"):
        classify(np.float32(1).reshape(()), 3, empty, has_batch=True)
