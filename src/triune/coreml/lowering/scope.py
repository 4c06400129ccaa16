"""The values of a graph while it is lowered."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, TensorProto, helper, numpy_helper

from triune.core.errors import InternalError, UnsupportedError
from triune.coreml.lowering.mb import Var, mb
from triune.graph.conversion.problems import MissingError
from triune.graph.values import Values

_FLOATS: Mapping[int, Any] = {
    TensorProto.FLOAT16: np.float16,
    TensorProto.FLOAT: np.float32,
    TensorProto.DOUBLE: np.float32,
}


class Empty:
    """A value without elements, which MIL cannot have: only what leaves it out can read it."""


EMPTY = Empty()


class Scope:
    """Names of ONNX values to MIL values. A subgraph's scope sees those of the graphs around it.

    A constant becomes a MIL constant when it is first used.
    """

    def __init__(self, graph: GraphProto, outer: "Scope | None" = None) -> None:
        self._outer = outer
        self.values = Values(graph, None if outer is None else outer.values)
        self._vars: dict[str, Var] = {}
        self._lost: set[str] = set()
        self._tensors: Mapping[str, TensorProto] = {tensor.name: tensor for tensor in graph.initializer}

    def put(self, name: str, value: Var) -> None:
        """The value of that name is `value`."""
        self._vars[name] = value

    def lose(self, name: str) -> None:
        """The value of that name could not be made."""
        self._lost.add(name)

    def value(self, name: str) -> Var:
        """Raises UnsupportedError for a constant of a type that MIL lacks, and MissingError."""
        found = self._find(name)
        if found is EMPTY:
            raise UnsupportedError(f"value '{name}' is empty, and Core ML has no empty tensors; remove what reads it")
        if found is None and self._is_lost(name):
            raise MissingError(f"value '{name}' could not be made")
        if found is None:
            tensor = self.tensor(name)
            if tensor is None:
                raise InternalError(f"value '{name}' is used before it is made")
            found = mb.const(val=as_constant(tensor))
            self._vars[name] = found
        return found

    def constant(self, name: str) -> NDArray[Any] | None:
        """The value, where it is known now."""
        found = self._find(name)
        if found is not None:
            return None if found is EMPTY or found.val is None else np.asarray(found.val)
        tensor = self.tensor(name)
        if tensor is not None and 0 in tensor.dims:
            return numpy_helper.to_array(tensor)
        return None if tensor is None else np.asarray(as_constant(tensor))

    def is_empty(self, name: str) -> bool:
        """Has the value no elements?"""
        tensor = self.tensor(name)
        return self._find(name) is EMPTY or (tensor is not None and 0 in tensor.dims)

    def tensor(self, name: str) -> TensorProto | None:
        """The initializer of that name."""
        if name in self._vars:
            return None
        if name in self._tensors:
            return self._tensors[name]
        return self._outer.tensor(name) if self._outer else None

    def _is_lost(self, name: str) -> bool:
        return name in self._lost or (self._outer is not None and self._outer._is_lost(name))

    def _find(self, name: str) -> Var | None:
        if name in self._vars:
            return self._vars[name]
        return self._outer._find(name) if self._outer else None


def as_constant(tensor: TensorProto) -> Any:
    """A constant in one of MIL's element types: fp16, fp32, int32, bool; a numpy scalar where it has no rank.

    Raises:
        UnsupportedError: of another type, or empty, or a whole number beyond int32.
    """
    if 0 in tensor.dims:
        raise UnsupportedError(f"constant '{tensor.name}' is empty, and Core ML has no empty tensors; remove its use")
    array = numpy_helper.to_array(tensor)
    if tensor.data_type in _FLOATS:
        array = array.astype(_FLOATS[tensor.data_type], copy=False)
    elif array.dtype.kind in "iu" and tensor.data_type != TensorProto.BFLOAT16:
        array = _as_int32(array, tensor.name)
    elif tensor.data_type != TensorProto.BOOL:
        kind = helper.tensor_dtype_to_string(tensor.data_type)
        raise UnsupportedError(f"constant '{tensor.name}' is of {kind}, which Core ML has not; cast it to FLOAT")
    return array[()] if array.ndim == 0 else array


def _as_int32(array: NDArray[Any], name: str) -> NDArray[np.int32]:
    limits = np.iinfo(np.int32)
    # INT64's ends stand for "to the end" in slices; as int32's ends they mean the same.
    ends = np.iinfo(np.int64)
    if array.dtype == np.int64:
        array = np.where(array >= ends.max - 1, limits.max, np.where(array <= ends.min + 1, limits.min, array))
    if array.min() < limits.min or array.max() > limits.max:
        raise UnsupportedError(f"constant '{name}' has whole numbers beyond int32, the widest of Core ML; narrow them")
    return array.astype(np.int32)
