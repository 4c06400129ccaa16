"""A scope maps the names of a graph's ONNX values to values of the program that is being written."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Generic, TypeVar

from numpy.typing import NDArray
from onnx import GraphProto, TensorProto

from triune.core.errors import InternalError, UnsupportedError
from triune.graph.conversion.problems import MissingError
from triune.graph.packed import Packed
from triune.graph.values import Values
from triune.graph.weight_files import array_of

V = TypeVar("V")
"""A tensor of the program, in the type that the target's builder uses."""


class Empty:
    """Stands for a value without elements. Programs have no such tensors, so only nodes that do not need this input may
    read it.
    """


EMPTY: Final = Empty()


class Scope(ABC, Generic[V]):
    """Maps names of ONNX values to the program's values. In a subgraph it also finds those of the graphs around it.

    A constant is written into the program when it is first used.
    """

    runtime: ClassVar[str]
    """The name of the target runtime in messages: "Core ML"."""

    def __init__(self, graph: GraphProto, outer: "Scope[V] | None" = None) -> None:
        self._outer = outer
        self.values = Values(graph, None if outer is None else outer.values)
        self._made: dict[str, V | Empty] = {}
        self._constants: dict[str, V] = {}
        self._packed: dict[str, Packed] = {}
        self._missing: set[str] = set()
        self._tensors: Mapping[str, TensorProto] = {tensor.name: tensor for tensor in graph.initializer}

    @abstractmethod
    def make(self, tensor: TensorProto) -> V:
        """Write a constant into the program. Raises UnsupportedError if programs cannot have it."""

    @abstractmethod
    def known(self, value: V) -> NDArray[Any] | None:
        """The elements of a program's value if the builder knows them at conversion time, else None."""

    @abstractmethod
    def narrowed(self, tensor: TensorProto) -> NDArray[Any]:
        """The elements of a constant, which is not empty, in the element type in which `make` writes it."""

    def put(self, name: str, value: V | Empty) -> None:
        """Set the program's value for the ONNX value `name`."""
        self._made[name] = value

    def pack(self, name: str, packed: Packed) -> None:
        """Record the quantized form of the weights `name`."""
        self._packed[name] = packed

    def packed(self, name: str) -> Packed | None:
        """The quantized form of the weights `name`; None if there is none."""
        return self._packed.get(name) or (self._outer.packed(name) if self._outer else None)

    def lose(self, name: str) -> None:
        """Record that the value `name` has no counterpart in the program, because its node could not be converted."""
        self._missing.add(name)

    def value(self, name: str) -> V:
        """The program's value for the ONNX value `name`.

        Raises:
            UnsupportedError: it is a constant that programs cannot have, or is empty.
            MissingError: its node could not be converted.
        """
        found = self._find(name)
        if isinstance(found, Empty):
            raise UnsupportedError(
                f"value '{name}' is empty, and {self.runtime} has no empty tensors; remove what reads it"
            )
        if found is None and self._is_missing(name):
            raise MissingError(f"value '{name}' could not be made")
        if found is None:
            return self._constant(name)
        return found

    def constant(self, name: str) -> NDArray[Any] | None:
        """The elements of a value if they are known at conversion time, else None."""
        packed = self.packed(name)
        if packed is not None:
            return packed.whole()
        found = self._find(name)
        if found is not None:
            return None if isinstance(found, Empty) else self.known(found)
        tensor = self.tensor(name)
        if tensor is not None and 0 in tensor.dims:
            return array_of(tensor)
        return None if tensor is None else self.narrowed(tensor)

    def is_empty(self, name: str) -> bool:
        """Whether the value has no elements."""
        tensor = self.tensor(name)
        return self._find(name) is EMPTY or (tensor is not None and 0 in tensor.dims)

    def tensor(self, name: str) -> TensorProto | None:
        """The initializer of this name; None if there is none."""
        if name in self._made:
            return None
        if name in self._tensors:
            return self._tensors[name]
        return self._outer.tensor(name) if self._outer else None

    def _constant(self, name: str) -> V:
        """Write a constant, once for each scope, since a subgraph cannot read what another subgraph writes."""
        if name not in self._constants:
            tensor = self.tensor(name)
            if tensor is None:
                raise InternalError(f"value '{name}' is used before it is made")
            self._constants[name] = self.make(tensor)
        return self._constants[name]

    def _is_missing(self, name: str) -> bool:
        return name in self._missing or (self._outer is not None and self._outer._is_missing(name))

    def _find(self, name: str) -> V | Empty | None:
        if name in self._made:
            return self._made[name]
        return self._outer._find(name) if self._outer else None
