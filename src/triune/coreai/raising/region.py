"""Raise the operations of a block in order, each by its family's function."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from triune.core.errors import InternalError, InvalidArgumentError, UnsupportedError
from triune.coreai.raising.constants import Constants
from triune.coreai.raising.given import Given
from triune.coreai.raising.types import is_complex, ranked, tensor_type
from triune.coreai.raising.values import Complex, Held, Sparse, State, Token
from triune.graph.raising.graph import Graph, Tensor
from triune.graph.raising.types import DType

Raise: TypeAlias = Callable[[Graph, Given], Held | Sequence[Held]]
ControlFlow: TypeAlias = Callable[["RegionRaiser", Any], Sequence[Held]]

# Exceptions that Python and numpy raise for a malformed operation. They are translated, with the operation's name in
# the message.
_MALFORMED = (ValueError, IndexError, KeyError, TypeError, AttributeError, ZeroDivisionError, OverflowError)
_DEEPEST = 64


class LostError(Exception):
    """An operand could not be raised, for a reason that is recorded already."""


@dataclass(slots=True)
class Program:
    """What all blocks of a function share while they are raised.

    Attributes:
        constants: the module's constants.
        graphs: the module's graphs by name.
        table: the functions that raise operations, by name.
        control_flow: the functions that raise operations with blocks, states or invoked graphs, by name.
        problems: the operations without an equivalent in ONNX, each with the reason, recorded once.
        malformed: the operations that are malformed, likewise.
        count: the number of operations raised so far, which makes names unique.
    """

    constants: Constants
    graphs: Mapping[str, Any]
    table: Mapping[str, Raise]
    control_flow: Mapping[str, ControlFlow]
    problems: list[str] = field(default_factory=list[str])
    malformed: list[str] = field(default_factory=list[str])
    count: int = 0


class RegionRaiser:
    """Raises the operations of blocks into one graph.

    Attributes:
        graph: the graph under construction.
        values: the counterpart in the graph of each of MLIR's values; shared with inner blocks.
        states: the current value of each state.
        depth: the nesting depth of invoked graphs.
    """

    def __init__(
        self, program: Program, graph: Graph, values: dict[Any, Held], states: Mapping[str, Tensor], depth: int = 0
    ) -> None:
        if depth > _DEEPEST:
            raise UnsupportedError(f"graphs invoke one another more than {_DEEPEST} deep")
        self.program = program
        self.graph = graph
        self.values = values
        self.states = dict(states)
        self.depth = depth

    def inner(self, graph: Graph) -> "RegionRaiser":
        """A raiser for a subgraph, which can read the values and states known so far."""
        return RegionRaiser(self.program, graph, self.values, self.states, self.depth)

    def block(self, block: Any) -> list[Held]:
        """Raise all operations, and return the operands of the last one, the terminator.

        Raises:
            LostError: one of these operands could not be raised.
        """
        operations = list(block.operations)
        if not operations:
            return []
        for operation in operations[:-1]:
            self._operation(operation)
        return [self.held(value) for value in operations[-1].operands]

    def held(self, value: Any) -> Held:
        """The counterpart of a value in the graph. Raises LostError if the value could not be raised."""
        if value not in self.values:
            raise LostError
        return self.values[value]

    def tensor(self, value: Any) -> Tensor:
        """The tensor in the graph for a tensor of real numbers.

        Raises:
            LostError: the value could not be raised.
            UnsupportedError: it is another kind of value.
        """
        held = self.held(value)
        if not isinstance(held, Tensor):
            raise UnsupportedError(f"an operand is {type(held).__name__}, not Tensor")
        return held

    def _operation(self, operation: Any) -> None:
        view = getattr(operation, "opview", operation)
        whole = view.operation.name
        name = whole.removeprefix("coreai.").removeprefix("decomposable.")
        self.program.count += 1
        self.graph.prefix = f"{name.removeprefix('broadcasting_')}_{self.program.count}"
        try:
            results = self._raised(name, view)
            for value, result in zip(view.results, results, strict=True):
                self.values[value] = self._declared(value, result)
        except LostError:
            return
        except (UnsupportedError, InvalidArgumentError) as error:
            self._refuse(whole, view, str(error), isinstance(error, InvalidArgumentError))
        except InternalError:
            raise
        except _MALFORMED as error:
            self._refuse(whole, view, str(error) or repr(error), True)

    def _raised(self, name: str, view: Any) -> Sequence[Held]:
        if name == "constant":
            return [self._constant(view)]
        if name in self.program.control_flow:
            return self.program.control_flow[name](self, view)
        raiser = self.program.table.get(name)
        if raiser is None:
            raise UnsupportedError("Core AI has no such operation, or ONNX cannot express it")
        results = raiser(self.graph, Given(view, self._operand))
        return [results] if isinstance(results, (Tensor, Complex, Sparse, State, Token)) else results

    def _operand(self, value: Any) -> Held:
        held = self.held(value)
        # No runtime computes in bf16: compute in a wider type, and round the result to bf16.
        if isinstance(held, Tensor) and held.dtype is DType.BF16:
            return self.graph.cast(held, DType.FP32)
        return held

    def _constant(self, view: Any) -> Held:
        attribute = view.value
        ranked(attribute.type)
        array = self.program.constants.array(attribute)
        self.graph.root.stored.add(array)
        kind = tensor_type(attribute.type)
        fresh = self.graph.root.fresh
        if is_complex(attribute.type):
            parts = [
                Tensor(fresh("constant"), kind.dtype, array.shape, part) for part in (np.real(array), np.imag(array))
            ]
            return Complex(*parts)
        return Tensor(fresh("constant"), kind.dtype, array.shape, array)

    def _declared(self, value: Any, result: Held) -> Held:
        """Cast a result to its declared element type, and give it its declared shape."""
        if isinstance(result, Complex):
            shape = tensor_type(value.type).shape
            parts = (result.real, result.imaginary)
            return Complex(*(Tensor(part.name, part.dtype, shape, part.constant) for part in parts))
        if not isinstance(result, Tensor):
            return result
        kind = tensor_type(value.type)
        cast = self.graph.cast(result, kind.dtype)
        shape = cast.constant.shape if cast.constant is not None else kind.shape
        return Tensor(cast.name, kind.dtype, shape, cast.constant)

    def _refuse(self, name: str, view: Any, reason: str, is_malformed: bool) -> None:
        """Record a problem, and define the results as placeholders, so that further problems are found."""
        told = self.program.malformed if is_malformed else self.program.problems
        problem = f"{name}: {reason}"
        if problem not in told:
            told.append(problem)
        for value in view.results:
            try:
                kind = tensor_type(value.type)
            except UnsupportedError:
                continue
            if not is_complex(value.type):
                self.values[value] = Tensor(self.graph.root.fresh("lost"), kind.dtype, kind.shape)


def table_of(*tables: Mapping[str, Raise]) -> Mapping[str, Raise]:
    """Combine the tables of all families. Raises InternalError if two families raise the same operation."""
    whole: dict[str, Raise] = {}
    for table in tables:
        if whole.keys() & table.keys():
            raise InternalError(f"two families raise {sorted(whole.keys() & table.keys())}")
        whole.update(table)
    return MappingProxyType(whole)
