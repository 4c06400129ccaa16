import ml_dtypes
import numpy as np
import pytest

from triune.core.datatypes import DataType
from triune.core.errors import InvalidArgumentError


@pytest.mark.parametrize("datatype", DataType)
def test_each_datatype_has_one_dtype_and_back(datatype: DataType) -> None:
    assert DataType.of(np.zeros(2, datatype.dtype)) is datatype
    assert DataType.parse(datatype.value) is datatype


def test_byte_order_does_not_matter_to_what_is_the_same() -> None:
    assert DataType.of(np.zeros(1, "<f4")) is DataType.FP32
    assert DataType.of(np.zeros(1, ml_dtypes.bfloat16)) is DataType.BF16


def test_others_are_named_in_the_error() -> None:
    with pytest.raises(InvalidArgumentError, match="complex64"):
        DataType.of(np.zeros(1, np.complex64))
    with pytest.raises(InvalidArgumentError, match="unknown datatype 'FLOAT'.*FP32"):
        DataType.parse("FLOAT")
