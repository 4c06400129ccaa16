"""The values of a graph while it is lowered to MIL."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from triune.core.errors import UnsupportedError
from triune.coreml.lowering.mb import Var, mb
from triune.graph.conversion import scope as conversion
from triune.graph.conversion.scope import EMPTY

__all__ = ["EMPTY", "Scope", "as_constant"]

_FLOATS: Mapping[int, Any] = {
    TensorProto.FLOAT16: np.float16,
    TensorProto.FLOAT: np.float32,
    TensorProto.DOUBLE: np.float32,
}


class Scope(conversion.Scope[Var]):
    """Names of ONNX values to MIL values."""

    runtime = "Core ML"

    def make(self, tensor: TensorProto) -> Var:
        """A MIL constant. Raises UnsupportedError for one of a type that MIL lacks."""
        return mb.const(val=as_constant(tensor))

    def known(self, value: Var) -> NDArray[Any] | None:
        """What coremltools' value inference knows."""
        return None if value.val is None else np.asarray(value.val)

    def narrowed(self, tensor: TensorProto) -> NDArray[Any]:
        """In one of MIL's element types."""
        return np.asarray(as_constant(tensor))


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
