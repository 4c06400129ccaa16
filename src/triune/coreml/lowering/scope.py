"""The values of a graph while it is lowered to MIL."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from triune.coreml.lowering.mb import Var, mb
from triune.graph.conversion import scope as conversion
from triune.graph.conversion.constants import narrow_constant
from triune.graph.conversion.scope import EMPTY

__all__ = ["EMPTY", "Scope", "as_constant"]


class Scope(conversion.Scope[Var]):
    """The MIL values of a graph, by the ONNX names of the values."""

    runtime = "Core ML"

    def make(self, tensor: TensorProto) -> Var:
        """Write a tensor as a constant.

        Raises:
            UnsupportedError: MIL lacks the tensor's type.
        """
        return mb.const(val=as_constant(tensor))

    def known(self, value: Var) -> NDArray[Any] | None:
        """The elements of `value` if coremltools knows them while the program is written; else None."""
        return None if value.val is None else np.asarray(value.val)

    def narrowed(self, tensor: TensorProto) -> NDArray[Any]:
        """The elements of a tensor, converted to one of MIL's element types."""
        return np.asarray(as_constant(tensor))


def as_constant(tensor: TensorProto) -> Any:
    """Convert a tensor to one of MIL's element types by `narrow_constant`. A tensor of rank 0 becomes a numpy
    scalar.
    """
    array = narrow_constant(tensor, Scope.runtime)
    return array[()] if array.ndim == 0 else array
