"""What is looked for in constants before they are cast to fp16: the same as coremltools looks for."""

from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil.mil import Builder
from coremltools.converters.mil.mil.passes.defs.quantization import FP16ComputePrecision

from triune.coreml.lowering.half_cast import check_in_blocks

mb: Any = Builder
PASS: Any = FP16ComputePrecision


@pytest.mark.parametrize(
    "number", [0.0, 65504.0, -65504.0, 65505.0, -7e4, 9e37, 2e38, np.inf, -np.inf, np.nan, -3.4028235e38]
)
@pytest.mark.parametrize("size", [1, 3_000_000])
def test_overflow_is_found_as_coremltools_finds_it(number: float, size: int) -> None:
    array = np.ones(size, np.float32)
    array[-1] = number

    @mb.program(input_specs=[mb.TensorSpec((1,))])
    def program(x: Any) -> Any:
        return mb.add(x=x, y=array)

    op = program.functions["main"].operations[-1]
    right = PASS.fp16_overflow(op)
    with check_in_blocks():
        assert PASS.fp16_overflow(op) is right
    assert PASS.fp16_overflow.__module__ == FP16ComputePrecision.__module__
