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
    """As `narrow_constant`; a numpy scalar where it has no rank."""
    array = narrow_constant(tensor, Scope.runtime)
    return array[()] if array.ndim == 0 else array
