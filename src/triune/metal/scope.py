"""The values of a graph while MLX computes it."""

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray
from onnx import GraphProto, TensorProto

from triune.graph.conversion import scope as conversion
from triune.graph.weight_files import array_of
from triune.metal.library import Value, to_numpy


class Scope(conversion.Scope[Value]):
    """The `conversion.Scope` of MLX. Unlike Core ML and Core AI, MLX supports empty arrays and all integer types."""

    runtime = "MLX"

    def __init__(
        self,
        graph: GraphProto,
        outer: "conversion.Scope[Value] | None",
        constants: dict[str, Value],
        make: Callable[[TensorProto], Value],
    ) -> None:
        """Make a scope.

        Args:
            graph: the graph.
            outer: the scope of the graph around it.
            constants: the arrays of MLX by name, for initializers and for values that depend on initializers alone.
                Initializers are added when they are first needed.
            make: converts an initializer to an array of MLX.
        """
        super().__init__(graph, outer)
        self._constants = constants
        self._make_constant = make
        self._narrowed: dict[str, NDArray[Any]] = {}

    def clear(self) -> None:
        """Forget all values but constants."""
        self._made.clear()

    def value(self, name: str) -> Value:
        """Implements `conversion.Scope.value`. Most values are found by the first look-up."""
        found = self._made.get(name)
        if found is None:
            found = self._constants.get(name)
        return super().value(name) if found is None else found

    def make(self, tensor: TensorProto) -> Value:
        """Implements `conversion.Scope.make`."""
        return self._make_constant(tensor)

    def constant(self, name: str) -> NDArray[Any] | None:
        """Implements `conversion.Scope.constant`. All values are known, except in a function that is being compiled."""
        tensor = self.tensor(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            # Read the array that was made of the constant, not its file, which may have changed since.
            return self.known(self.value(name))
        return self.narrowed(tensor)

    def known(self, value: Value) -> NDArray[Any] | None:
        """Implements `conversion.Scope.known`."""
        try:
            return to_numpy(value)
        except ValueError:
            return None

    def narrowed(self, tensor: TensorProto) -> NDArray[Any]:
        """Implements `conversion.Scope.narrowed`."""
        if tensor.name not in self._narrowed:
            self._narrowed[tensor.name] = array_of(tensor)
        return self._narrowed[tensor.name]

    def is_empty(self, name: str) -> bool:
        """Implements `conversion.Scope.is_empty`: always False, since MLX computes with empty arrays."""
        return False

    def _constant(self, name: str) -> Value:
        outer = self._outer
        if name not in self._constants and name not in self._tensors and isinstance(outer, Scope):
            return outer._constant(name)
        return super()._constant(name)
