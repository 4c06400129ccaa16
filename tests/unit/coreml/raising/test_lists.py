"""Lists in the body of a loop, in fp32 and in fp16."""

from typing import Any

import numpy as np
import pytest

from support.mil_programs import make_package, mb
from triune.coreml.interpreter import Interpreter
from triune.coreml.onnx_executor import OnnxExecutor


def reversed_rows(given: Any, dtype: str) -> Any:
    """Rows 3, 2, 1 and 0 of x, doubled, as elements 0 to 3 of a list; of these 3, 0 and 0."""
    two = np.dtype(dtype).type(2)

    def body(i: Any, ls: Any) -> Any:
        row = mb.gather(x=given.x, indices=mb.sub(x=3, y=i), axis=0)
        return mb.add(x=i, y=1), mb.list_write(ls=ls, index=i, value=mb.mul(x=row, y=two))

    ls = mb.make_list(init_length=4, elem_shape=(3,), dtype={"float16": "fp16", "float32": "fp32"}[dtype])
    _, ls = mb.while_loop(_cond=lambda i, ls: mb.less(x=i, y=4), _body=body, loop_vars=(np.int32(0), ls))
    return mb.list_gather(ls=ls, indices=[3, 0, 0])


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_list_that_a_loop_writes(dtype: str) -> None:
    x = np.arange(12, dtype=dtype).reshape(4, 3)
    package = make_package(lambda given: reversed_rows(given, dtype), {"x": x}, "iOS17")
    for executor in (OnnxExecutor, Interpreter):
        results, _ = executor(package).run({"x": x}, {})
        (found,) = results.values()
        np.testing.assert_array_equal(found, x[[0, 3, 3]] * 2)
        assert found.dtype == dtype
