"""The arguments of the operation that is raised, as tensors of the graph; defaults are filled in."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreml.mil import Array, DType, Operation, TensorType
from triune.coreml.parameters import PARAMETERS, PerSpatial, Required
from triune.graph.axes import existing_axis
from triune.graph.raising.graph import Tensor


class Given:
    """One operation's arguments.

    Attributes:
        operation: the MIL operation.
        opset: the operator set of its function, "CoreML5" to "CoreML9".
    """

    def __init__(self, operation: Operation, arguments: Mapping[str, tuple[Tensor, ...]], opset: str) -> None:
        """Check that all required parameters are given, and no unknown ones.

        Args:
            operation: the operation.
            arguments: its arguments, by parameter.
            opset: the operator set of its function.

        Raises:
            InvalidArgumentError: a parameter is missing.
            UnsupportedError: a parameter is not known.
        """
        self.operation = operation
        self.opset = opset
        self._arguments = arguments
        self._parameters = PARAMETERS[operation.op]
        unknown = set(arguments) - set(self._parameters)
        if unknown:
            raise UnsupportedError(f"the parameters {sorted(unknown)} are not known")
        for name, default in self._parameters.items():
            if isinstance(default, Required) and name not in arguments:
                raise InvalidArgumentError(f"the parameter '{name}' is missing")

    def __getitem__(self, name: str) -> Tensor:
        """The argument of the parameter `name`.

        Raises:
            InvalidArgumentError: the parameter has no argument, or several.
        """
        tensor = self.maybe(name)
        if tensor is None:
            raise InvalidArgumentError(f"the parameter '{name}' is missing")
        return tensor

    def maybe(self, name: str) -> Tensor | None:
        """The argument of a parameter; None if it is not given."""
        given = self._arguments.get(name)
        if given is None:
            return None
        if len(given) != 1:
            raise InvalidArgumentError(f"the parameter '{name}' has {len(given)} values instead of one")
        return given[0]

    def many(self, name: str) -> tuple[Tensor, ...]:
        """All arguments of a parameter that takes several."""
        return self._arguments[name]

    def maybe_array(self, name: str) -> Array | None:
        """A constant argument, or the parameter's default, which may be None.

        Raises:
            UnsupportedError: the argument is known only at run time.
        """
        tensor = self.maybe(name)
        if tensor is not None:
            if tensor.constant is None:
                raise UnsupportedError(f"the parameter '{name}' is not a constant")
            return tensor.constant
        default: Any = self._parameters[name]
        if isinstance(default, PerSpatial):
            return np.full((self["x"].rank - 2) * default.count, default.value)
        return None if default is None else np.asarray(default)

    def array(self, name: str) -> Array:
        """A constant argument, or the parameter's default.

        Raises:
            InvalidArgumentError: there is neither.
            UnsupportedError: the argument is known only at run time.
        """
        value = self.maybe_array(name)
        if value is None:
            raise InvalidArgumentError(f"the parameter '{name}' is missing")
        return value

    def ints(self, name: str) -> list[int]:
        """A constant vector of integers."""
        return [int(each) for each in self.array(name).reshape(-1)]

    def maybe_ints(self, name: str) -> list[int] | None:
        """A constant vector of integers; None if there is neither an argument nor a default."""
        value = self.maybe_array(name)
        return None if value is None else [int(each) for each in value.reshape(-1)]

    def integer(self, name: str) -> int:
        """A constant integer."""
        return int(self._scalar(name))

    def number(self, name: str) -> float:
        """A constant number."""
        return float(self._scalar(name))

    def flag(self, name: str) -> bool:
        """A constant bool."""
        return bool(self._scalar(name))

    def text(self, name: str) -> str:
        """A constant string."""
        return str(self._scalar(name))

    def axis(self, name: str = "axis", of: str = "x", extra: int = 0) -> int:
        """A constant axis, with negative values converted to 0 or more.

        Args:
            name: the parameter.
            of: the parameter whose dimensions are counted.
            extra: the number of additional dimensions, for an axis of the result.

        Raises:
            InvalidArgumentError: there is no such axis.
        """
        return existing_axis(self.integer(name), self[of].rank + extra, name)

    @property
    def dtype(self) -> DType:
        """The declared element type of the first output."""
        return self.result().dtype

    def result(self, index: int = 0) -> TensorType:
        """The declared type of an output.

        Raises:
            InvalidArgumentError: there is no such output, or it is not declared as a tensor.
        """
        outputs = self.operation.outputs
        kind = outputs[index].type if index < len(outputs) else None
        if not isinstance(kind, TensorType):
            raise InvalidArgumentError(f"output {index} is not declared to be a tensor")
        return kind

    def _scalar(self, name: str) -> Any:
        value = self.array(name)
        if value.size != 1:
            raise InvalidArgumentError(f"the parameter '{name}' has {value.size} values instead of one")
        return value.reshape(-1)[0]
