"""Compare integers within int32 with constants beyond it: x < 2^40 becomes x <= 2^31 - 1, and x == 2^40 becomes
false.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from triune.graph.builder import Builder

_INT32 = np.iinfo(np.int32)

_NEXT: Mapping[tuple[str, int, bool], tuple[str, int]] = {
    ("Less", 1, True): ("LessOrEqual", -1),
    ("GreaterOrEqual", 1, True): ("Greater", -1),
    ("LessOrEqual", 1, False): ("Less", 1),
    ("Greater", 1, False): ("GreaterOrEqual", 1),
    ("Greater", 0, True): ("GreaterOrEqual", -1),
    ("LessOrEqual", 0, True): ("Less", -1),
    ("Less", 0, False): ("LessOrEqual", 1),
    ("GreaterOrEqual", 0, False): ("Greater", 1),
}
"""The keys are an operator, the position of its constant, and whether the constant is above int32 (else below). The
values are the equivalent operator for the next whole number (x < c is x <= c - 1), and what to add to the constant.

The new comparison gives the same result with the constant clipped to int32. Other comparisons can be clipped as they
are, by `narrow_values`.
"""

COMPARISONS = frozenset(["Equal", *(op_type for op_type, _, _ in _NEXT)])
"""The operators that compare integers."""


def compare_within_int32(node: NodeProto, constant_of: Callable[[str], NDArray[Any] | None], build: Builder) -> bool:
    """Build nodes that are equivalent to a comparison with a constant beyond int32, with constants within int32.

    Args:
        node: one of `COMPARISONS`.
        constant_of: gives the array of a constant of whole numbers, else None.
        build: takes the new nodes, whose last has the output of `node`.

    Returns:
        whether nodes were built. They are not if all numbers are within int32, if clipping them to int32 gives an
            equivalent comparison, or if a comparison by order (Less and the like) has constants beyond both ends of
            int32.
    """
    for position, name in enumerate(node.input):
        array = constant_of(name)
        if array is None or not array.size:
            continue
        if node.op_type == "Equal":
            return _equal(node, position, array, build)
        for is_above, is_beyond in ((True, array.max() > _INT32.max), (False, array.min() < _INT32.min)):
            found = _NEXT.get((node.op_type, position, is_above))
            if is_beyond and found is not None:
                return _ordered(node, position, array, *found, build)
    return False


def _equal(node: NodeProto, position: int, array: NDArray[Any], build: Builder) -> bool:
    """Build `x == c` for the elements of the constant c that are within int32, and false for the others.

    Returns False, and builds nothing, if all are within.
    """
    is_within = (array >= _INT32.min) & (array <= _INT32.max)
    if is_within.all():
        return False
    within = build.typed(np.where(is_within, array, 0), TensorProto.INT32)
    equal = build.op("Equal", *(within if at == position else name for at, name in enumerate(node.input)))
    build.put("And", [equal, build.constant(is_within)], node.output)
    return True


def _ordered(node: NodeProto, position: int, array: NDArray[Any], op_type: str, step: int, build: Builder) -> bool:
    """Build the equivalent comparison of x by `op_type` with the constant + `step`, as x < c is x <= c - 1.

    Returns False, and builds nothing, if the constant + `step` is still beyond the end of int32 in the direction of
    `step`.
    """
    stepped = np.asarray(array.astype(object) + step)
    if (stepped.min() < _INT32.min) if step < 0 else (stepped.max() > _INT32.max):
        return False
    within = build.typed(np.clip(stepped, _INT32.min, _INT32.max).astype(np.int32), TensorProto.INT32)
    build.put(op_type, [within if at == position else name for at, name in enumerate(node.input)], node.output)
    return True
