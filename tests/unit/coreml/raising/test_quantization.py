"""quantize and dequantize, against their formulas."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from support.mil_programs import make_package, mb, run
from triune.core.errors import InvalidArgumentError
from triune.coreml.mil import Array, Constant, DType, Operation, Program
from triune.coreml.raising import raise_function


def round_trip(given: Any, scale: Array, zero_point: Array | None, axis: int | None, dtype: str) -> Any:
    more: dict[str, Any] = {} if axis is None else {"axis": axis}
    if zero_point is not None:
        more["zero_point"] = zero_point
    quantized = mb.quantize(input=given.x, scale=scale, output_dtype=dtype, **more)
    return mb.cast(x=quantized, dtype="int32"), mb.dequantize(input=quantized, scale=scale, **more)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("has_zero_point", [True, False])
@pytest.mark.parametrize("number", [np.float32, np.float16])
def test_round_trip(dtype: str, axis: int | None, has_zero_point: bool, number: Any) -> None:
    shape = (3, 4, 5)
    generator = np.random.default_rng(1)
    # Halves, so that ties are rounded to even numbers, and some beyond the range.
    x = (generator.integers(-700, 700, shape) / 2).astype(number)
    size = () if axis is None else shape[axis]
    scale = np.exp2(generator.integers(-1, 2, size)).astype(number)
    zero_point = generator.integers(0, 100, size).astype(dtype) if has_zero_point else None
    along = [1, 1, 1]
    if axis is not None:
        along[axis] = -1
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    spread_scale = scale.reshape(along).astype(np.float64)
    spread_zero = 0 if zero_point is None else zero_point.reshape(along).astype(np.float64)
    want = np.clip(np.around(x / spread_scale) + spread_zero, low, high)
    quantized, back = run(lambda given: round_trip(given, scale, zero_point, axis, dtype), {"x": x}, "iOS17")
    np.testing.assert_array_equal(quantized, want)
    assert back.dtype == number
    np.testing.assert_array_equal(back, (want - spread_zero) * spread_scale)


def test_wrong_number_of_scales() -> None:
    scale = np.ones(4, np.float32)
    package = make_package(
        lambda given: round_trip(given, scale, None, 0, "int8")[1], {"x": np.ones((4, 3), np.float32)}, "iOS17"
    )
    operations = tuple(_along_1(each) for each in package.function().block.operations)
    function = replace(package.function(), block=replace(package.function().block, operations=operations))
    with pytest.raises(InvalidArgumentError, match="4 scales for a dimension of 3"):
        raise_function(Program({"main": function}))


def _along_1(operation: Operation) -> Operation:
    if "axis" not in operation.inputs:
        return operation
    return replace(operation, inputs={**operation.inputs, "axis": (Constant(np.array(1, np.int32), DType.INT32),)})
