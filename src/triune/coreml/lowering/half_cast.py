"""A check for constants that overflow in fp16. It replaces coremltools' check, which copies the constants."""

import contextlib
from collections.abc import Generator
from typing import Any

import numpy as np
from coremltools.converters.mil.mil.passes.defs.quantization import FP16ComputePrecision
from numpy.typing import NDArray

from triune.graph.half.limits import LARGEST

_PASS: Any = FP16ComputePrecision

_INFINITE = 1e38
"""coremltools treats numbers of at least this magnitude as infinite. fp16 has infinities, so that such numbers do not
overflow.
"""

_BLOCK = 1 << 20
_MOST_CHECKED_ELEMENTS = 400
"""Constants of more elements are not searched for numbers that become 0 in fp16: coremltools would copy them."""


@contextlib.contextmanager
def check_in_blocks() -> Generator[None]:
    """A context in which coremltools' pass `add_fp16_cast` searches constants for overflow one block at a time.

    Its own search makes an index of 8 bytes for each element and dimension: several times the constant's size.
    """
    overflow, underflow = _PASS.__dict__["fp16_overflow"], _PASS.__dict__["_check_underflow_to_zero"]

    def check_underflow(self: Any, new_var: Any, var: Any) -> None:
        if np.size(var.val) < _MOST_CHECKED_ELEMENTS:
            underflow(self, new_var, var)

    _PASS.fp16_overflow = staticmethod(_overflows)
    _PASS._check_underflow_to_zero = check_underflow
    try:
        yield
    finally:
        _PASS.fp16_overflow = overflow
        _PASS._check_underflow_to_zero = underflow


def _overflows(op: Any) -> bool:
    """Whether a constant operand of `op` has a number that is finite in fp32 and infinite in fp16."""
    given: list[Any] = []
    for each in op.inputs.values():
        given += each if isinstance(each, (list, tuple)) else [each]
    constants = [each for each in given if each.op is not None and each.op.op_type == "const"]
    return any(each.is_tensor_or_scalar_of(dtype="fp32") and _is_beyond(np.asarray(each.val)) for each in constants)


def _is_beyond(array: NDArray[Any]) -> bool:
    """Whether an element is finite and larger than fp16's largest number."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        sizes = np.abs(flat[start : start + _BLOCK])
        if bool(((sizes > LARGEST) & (sizes < _INFINITE)).any()):
            return True
    return False
