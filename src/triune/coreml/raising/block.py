"""Raise the operations of a block in order, each by its family's function."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from onnx import NodeProto

from triune.core.errors import InternalError, InvalidArgumentError, TriuneError, UnsupportedError, reworded
from triune.coreml.mil import Argument, Array, Block, Constant, DType, Name, Operation, Packed, TensorType
from triune.coreml.raising.given import Given
from triune.graph.raising.graph import Graph, Tensor
from triune.graph.raising.subgraphs import rename

Raise: TypeAlias = Callable[[Graph, Given], Tensor | Sequence[Tensor]]
# Exceptions that Python and numpy raise for a malformed operation. They are translated, with the operation's name in
# the message.
_MALFORMED = (ValueError, IndexError, KeyError, TypeError, ZeroDivisionError, OverflowError)


# Operations whose parameters, such as weights, may have another element type than `x`.
_MIXED = frozenset(
    {
        *("batch_norm", "instance_norm", "l2_norm", "layer_norm", "local_response_norm"),
        *("clamped_relu", "elu", "leaky_relu", "linear_activation", "prelu", "scaled_tanh", "sigmoid_hard"),
        *("softplus_parametric", "thresholded_relu"),
        *("conv", "conv_transpose", "linear", "matmul"),
        *("inverse", "log", "rsqrt"),
    }
)


class BlockRaiser:
    """Raises a block's operations into one graph.

    Attributes:
        graph: the graph under construction.
        values: by the name of each MIL value, the ONNX tensor that holds it.
        states: the current value of each state.
    """

    def __init__(
        self,
        graph: Graph,
        values: Mapping[str, Tensor],
        states: Mapping[str, Tensor],
        opset: str,
        families: "Families",
        is_outermost: bool = False,
    ) -> None:
        self.graph = graph
        self.values = dict(values)
        self.states = dict(states)
        self._opset = opset
        self._families = families
        self._is_outermost = is_outermost

    def inner(self, graph: Graph) -> "BlockRaiser":
        """A raiser for a subgraph, which can read the values and states known so far."""
        return BlockRaiser(graph, self.values, self.states, self._opset, self._families)

    def block(self, block: Block) -> list[Tensor]:
        """Raise all operations of a block.

        Returns:
            the outputs of the block.

        Raises:
            InvalidArgumentError: an operation is malformed.
            UnsupportedError: an operation has no equivalent in ONNX.
        """
        for operation in block.operations:
            try:
                self._operation(operation)
            except InternalError:
                raise
            except TriuneError as error:
                if str(error).startswith("operation '"):
                    raise
                raise reworded(error, f"operation '{operation.name}' ({operation.op}): {error}") from error
            except _MALFORMED as error:
                raise InvalidArgumentError(f"operation '{operation.name}' ({operation.op}): {error}") from error
        return [self.values[name] for name in block.outputs]

    def argument(self, argument: Argument) -> Tensor:
        """The tensor of the graph that an argument refers to."""
        if isinstance(argument, Name):
            return self.values[argument.name]
        return self.constant("constant", argument)

    def constant(self, name: str, constant: Constant) -> Tensor:
        """Make a tensor of a constant, under a name derived from `name`."""
        stored = self.graph.root.stored
        match constant.stored:
            case Packed(data=data, shape=shape):
                stored.add(data)
                # Count the memory of unpacking: it makes two arrays with one byte for each element.
                stored.make(2, *shape)
            case tuple():
                pass
            case array:
                stored.add(array)
        value = constant.value
        array: Array = _stacked(value, constant.dtype) if isinstance(value, tuple) else value
        return Tensor(self.graph.root.fresh(name), constant.dtype, array.shape, array)

    def define(self, operation: Operation, results: Sequence[Tensor]) -> None:
        """Bind the names of an operation's outputs to `results`, cast to the declared element types."""
        if len(results) < len(operation.outputs):
            raise InvalidArgumentError(f"{len(operation.outputs)} outputs are declared, but it has {len(results)}")
        for output, result in zip(operation.outputs, results, strict=False):
            kind = output.type
            if isinstance(kind, TensorType):
                cast = self.graph.cast(result, kind.dtype)
                shape = cast.constant.shape if cast.constant is not None else kind.shape
                self.values[output.name] = Tensor(cast.name, kind.dtype, shape, cast.constant)
            else:
                self.values[output.name] = result

    def _operation(self, operation: Operation) -> None:
        graph = self.graph
        graph.prefix = operation.name
        if operation.op == "const":
            self.values[operation.outputs[0].name] = self.constant(operation.name, operation.attributes["val"])
        elif operation.op in self._families.control_flow:
            self.define(operation, self._families.control_flow[operation.op](self, operation))
        else:
            raiser = self._families.table.get(operation.op)
            if raiser is None:
                raise UnsupportedError("MIL has no such operation, or ONNX cannot express it")
            start = len(graph.nodes)
            arguments = {name: tuple(self.argument(each) for each in given) for name, given in operation.inputs.items()}
            for name, constant in operation.attributes.items():
                if name != "name":
                    arguments[name] = (self.constant("constant", constant),)
            if operation.op in _MIXED:
                arguments = _in_one_type(graph, arguments)
            results = raiser(graph, Given(operation, arguments, self._opset))
            self.define(operation, [results] if isinstance(results, Tensor) else results)
            self._rename(operation, graph.nodes[start:])

    def _rename(self, operation: Operation, nodes: Sequence[NodeProto]) -> None:
        """Rename the outputs of `nodes`, which compute an operation, to the names that MIL has for them.

        If the ONNX graph already uses an output's MIL name, a number is appended to it ("x/1"). The names of the
        function's outputs are kept for values of the outermost graph: in a subgraph they get a number in any case.
        """
        made = {name for node in nodes for name in node.output}
        names: dict[str, str] = {}
        for output in operation.outputs:
            tensor = self.values[output.name]
            if tensor.name in made and tensor.name not in names:
                root = self.graph.root
                is_free = self._is_outermost and root.claim(output.name)
                new = output.name if is_free else root.fresh(output.name)
                names[tensor.name] = new
                self.values[output.name] = Tensor(new, tensor.dtype, tensor.shape, tensor.constant)
        for output in operation.outputs:
            tensor = self.values[output.name]
            if tensor.name in names:
                self.values[output.name] = Tensor(names[tensor.name], tensor.dtype, tensor.shape, tensor.constant)
        rename(nodes, names)


ControlFlow: TypeAlias = Callable[[BlockRaiser, Operation], Sequence[Tensor]]


class Families:
    """The functions that raise operations, by the type of the operation.

    Attributes:
        table: functions for operations that need only their arguments.
        control_flow: functions for operations with blocks or states.
    """

    def __init__(self, table: Mapping[str, Raise], control_flow: Mapping[str, ControlFlow]) -> None:
        self.table = MappingProxyType(dict(table))
        self.control_flow = MappingProxyType(dict(control_flow))

    def missing(self, block: Block) -> Iterator[str]:
        """Yield the name and type of each operation, in a block and the blocks within it, that cannot be raised."""
        for operation in block.operations:
            known = operation.op == "const" or operation.op in self.table or operation.op in self.control_flow
            if not known:
                yield f"'{operation.name}' ({operation.op})"
            for inner in operation.blocks:
                yield from self.missing(inner)


def _in_one_type(graph: Graph, arguments: Mapping[str, tuple[Tensor, ...]]) -> dict[str, tuple[Tensor, ...]]:
    """Cast fp16 arguments to fp32 if other arguments are fp32, so that only the result is rounded to fp16."""
    kinds = {each.dtype for given in arguments.values() for each in given}
    if not kinds.issuperset((DType.FP16, DType.FP32)):
        return dict(arguments)
    # Do not cast constants here: they are cast to the type of `x` where they are used.
    return {
        name: tuple(
            graph.cast(each, DType.FP32) if each.dtype is DType.FP16 and each.constant is None else each
            for each in given
        )
        for name, given in arguments.items()
    }


def _stacked(values: tuple[Array, ...], dtype: DType) -> Array:
    if not values:
        return np.empty(0, dtype.numpy)
    if dtype is DType.STRING:
        texts = np.empty(len(values), np.object_)
        texts[:] = [str(each.reshape(-1)[0]) for each in values]
        return texts
    return np.stack(values)
