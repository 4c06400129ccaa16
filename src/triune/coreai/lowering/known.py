"""Finds the values of a program that are constant at conversion time, and their elements."""

import re
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from triune.coreai.library import Value, ir
from triune.coreai.lowering.values import dtype_of, shape_of

_CONSTANT: Final = "coreai.constant"
_SHAPE: Final = "coreai.get_shape"

_RESHAPES = frozenset({"coreai.reshape", "coreai.expand_dims", "coreai.shrink_dims"})

# How MLIR prints the bytes of a constant: in hexadecimal, 4 bytes of alignment and then the elements.
_BLOB = re.compile(r"\"0x[0-9A-Fa-f]{8}([0-9A-Fa-f]*)\"")

_LARGEST = 1 << 16
"""The longest constant to read, in printed characters. MLIR can be configured to omit longer ones."""


class Known:
    """The constants of a module. Results are cached, so that a value must not change after it was looked up."""

    def __init__(self) -> None:
        self._constant: dict[Value, bool] = {}
        self._fixed: dict[Value, bool] = {}

    def is_constant(self, value: Value) -> bool:
        """Whether a value is constant or computed only from constants."""
        return _is_made_of(value, lambda name: name == _CONSTANT, self._constant)

    def may_be_constant(self, value: Value) -> bool:
        """Whether a value is constant, or becomes so once the shapes of the function's inputs are fixed."""
        return _is_made_of(value, lambda name: name in (_CONSTANT, _SHAPE), self._fixed)

    def numbers(self, value: Value) -> NDArray[Any] | None:
        """The elements of a small constant in fp64; None for other values."""
        operation = value.owner
        if isinstance(operation, ir.Block) or None in shape_of(value):
            return None
        name = operation.operation.name
        if name in _RESHAPES:
            inner = self.numbers(operation.operands[0])
            return None if inner is None else inner.reshape([size or 0 for size in shape_of(value)])
        return _elements(operation, value) if name == _CONSTANT else None


def _is_made_of(value: Value, is_root: Callable[[str], bool], found: dict[Value, bool]) -> bool:
    """Whether `value` is computed only from operations for which `is_root` is true. `found` caches results."""
    if value not in found:
        operation = value.owner
        if isinstance(operation, ir.Block):
            found[value] = False
        elif is_root(operation.operation.name):
            found[value] = True
        else:
            operands = list(operation.operands)
            found[value] = bool(operands) and all(_is_made_of(each, is_root, found) for each in operands)
    return found[value]


def _elements(operation: Any, value: Value) -> NDArray[Any] | None:
    attribute = operation.attributes["value"]
    shape = [size or 0 for size in shape_of(value)]
    if isinstance(attribute, ir.DenseElementsAttr):
        found = np.array(attribute)
        if attribute.is_splat:
            return np.full(shape, found.flat[0], np.float64)
        return found.reshape(shape).astype(np.float64)
    # The Python bindings of MLIR do not expose the bytes of other constants: read them from the printed form.
    blob = _BLOB.search(str(operation.operation.get_asm(large_resource_limit=_LARGEST)))
    if blob is None:
        return None
    return np.frombuffer(bytes.fromhex(blob[1]), dtype_of(value)).reshape(shape).astype(np.float64)
