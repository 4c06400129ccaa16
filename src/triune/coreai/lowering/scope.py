"""The values of a graph while it is lowered to Core AI."""

from typing import Any

from numpy.typing import NDArray
from onnx import TensorProto

from triune.coreai.library import Value
from triune.coreai.lowering.values import constant
from triune.graph.conversion import scope as conversion
from triune.graph.conversion.constants import narrow_constant


class Scope(conversion.Scope[Value]):
    """Names of ONNX values to Core AI's."""

    runtime = "Core AI"

    def make(self, tensor: TensorProto) -> Value:
        """A constant. Raises UnsupportedError for one of a type that no core op has."""
        return constant(self.narrowed(tensor))

    def known(self, value: Value) -> NDArray[Any] | None:
        """Nothing: what is known was folded before."""
        del value

    def narrowed(self, tensor: TensorProto) -> NDArray[Any]:
        """In fp16, fp32, int32 or bool."""
        return narrow_constant(tensor, self.runtime)
