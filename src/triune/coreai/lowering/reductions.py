"""Lowering of reductions over axes that may have no elements: the neutral element is then chosen as the result.

Apple's interpreter would return the result of the call before, or what is in the memory.
"""

from typing import Any

import numpy as np

from triune.coreai.library import ops
from triune.coreai.lowering.context import Context, Lowering
from triune.coreai.lowering.dims import as_scalar, dim_of, product
from triune.coreai.lowering.values import constant, dtype_of, like
from triune.graph.conversion.lowering.reductions import reduce, reduced_axes


def _reduce(c: Context) -> None:
    """Lower a reduction. If there are no elements, the result is the neutral element, and 0 for the mean, as in ONNX
    Runtime.
    """
    reduce(c)
    x = c.input(0)
    free = [axis for axis in reduced_axes(c, x) if c.scope.values.may_be_empty(c.node.input[0], axis)]
    counts = [count for count in (dim_of(x, axis) for axis in free) if not isinstance(count, int)]
    if not counts:
        return
    found = c.scope.value(c.node.output[0])
    is_some = ops.broadcasting_greater(as_scalar(product(counts)), constant(np.int32(0)))
    c.give(ops.broadcasting_where(is_some, found, like(found, _neutral(c.node.op_type, dtype_of(found)))))


def _neutral(op: str, dtype: np.dtype[Any]) -> Any:
    match op:
        case "ReduceProd":
            return 1
        case "ReduceMax" if dtype.kind in "iu":
            return np.iinfo(dtype).min
        case "ReduceMin" if dtype.kind in "iu":
            return np.iinfo(dtype).max
        case "ReduceMax":
            return False if dtype.kind == "b" else -np.inf
        case "ReduceMin":
            return True if dtype.kind == "b" else np.inf
        case _:
            return 0


TABLE: dict[str, Lowering] = dict.fromkeys(["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"], _reduce)
