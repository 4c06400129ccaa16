"""Read the MIL protobuf of an ML Program. Everything in it is checked here, once.

Blocks must define each name before it is used, so that a program has no cycles.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from triune.core.errors import InvalidArgumentError, NotFoundError
from triune.coreml.mil import (
    Argument,
    Block,
    Constant,
    Function,
    Name,
    Operation,
    Output,
    Program,
    TensorType,
    Type,
)
from triune.coreml.read_values import read_type, read_value
from triune.coreml.weights import Weights

_MAX_RANK = 5
_VERSION = 1


def read_program(proto: Any, weights: Weights, file: str) -> Program:
    """Read and check a program.

    Args:
        proto: `MIL_pb2.Program`.
        weights: opens the program's weight files.
        file: the file's name in error messages.

    Raises:
        InvalidArgumentError: a name is used before it is defined or defined twice, a constant does not have the size
            of its type, a weight is not in its file, a tensor has more than 5 dimensions, a list is too short.
        NotFoundError: a weight file does not exist.
        UnsupportedError: an element type or a kind of value is not known.
    """
    if proto.version != _VERSION:
        raise InvalidArgumentError(f"'{file}': the program is of version {proto.version}; version {_VERSION} is known")
    if not proto.functions:
        raise InvalidArgumentError(f"'{file}': the program has no functions")
    functions = {
        str(name): _Reader(weights, f"'{file}', function '{name}'").function(str(name), function)
        for name, function in sorted(proto.functions.items())
    }
    return Program(MappingProxyType(functions))


def find_function(program: Program, name: str, file: str) -> Function:
    """Return a function by name.

    Raises:
        NotFoundError: there is no function of that name; the message lists those that exist.
    """
    if name not in program.functions:
        raise NotFoundError(f"'{file}' has no function '{name}'; it has {sorted(program.functions)}")
    return program.functions[name]


class _Reader:
    """Reads one function of a program from its protobuf."""

    def __init__(self, weights: Weights, where: str) -> None:
        self._weights = weights
        self._where = where

    def function(self, name: str, proto: Any) -> Function:
        opset = str(proto.opset)
        if opset not in proto.block_specializations:
            available = sorted(proto.block_specializations)
            raise InvalidArgumentError(
                f"{self._where}: there is no block for its opset '{opset}', only for {available}"
            )
        inputs = self._outputs(proto.inputs, f"{self._where}, inputs")
        block = self._block(proto.block_specializations[opset], inputs, frozenset())
        # Two outputs may be the same value. They have the same name, and become one output.
        return Function(name, inputs, opset, replace(block, outputs=tuple(dict.fromkeys(block.outputs))))

    def _block(self, proto: Any, function_inputs: tuple[Output, ...], outer: frozenset[str]) -> Block:
        inputs = self._outputs(proto.inputs, f"{self._where}, block inputs")
        own: set[str] = set()
        self._define(own, (*function_inputs, *inputs), self._where)
        operations: list[Operation] = []
        for operation_proto in proto.operations:
            operation = self._operation(operation_proto, outer | own, proto)
            self._define(own, operation.outputs, self._called(operation_proto))
            operations.append(operation)
        outputs = tuple(str(name) for name in proto.outputs)
        for name in outputs:
            if name not in own and name not in outer:
                raise InvalidArgumentError(f"{self._where}: its output '{name}' is not defined")
        return Block(inputs, tuple(operations), outputs)

    def _operation(self, proto: Any, visible: frozenset[str] | set[str], block: Any) -> Operation:
        where = self._called(proto)
        if not proto.type:
            raise InvalidArgumentError(f"{where}: it has no type")
        inputs: dict[str, tuple[Argument, ...]] = {}
        for parameter, argument in proto.inputs.items():
            bindings = list(argument.arguments)
            inputs[str(parameter)] = tuple(
                self._argument(each, visible, f"{where}, input '{parameter}'", block) for each in bindings
            )
        attributes = {
            str(name): read_value(value, self._weights, f"{where}, attribute '{name}'")
            for name, value in proto.attributes.items()
        }
        outputs = self._outputs(proto.outputs, where)
        if proto.type == "const":
            _check_const(attributes, inputs, outputs, where)
        elif not proto.type.startswith("constexpr_"):
            for output in outputs:
                _check_rank(output.type, f"{where}, output '{output.name}'")
        blocks = tuple(self._block(each, (), frozenset(visible)) for each in proto.blocks)
        return Operation(str(proto.type), MappingProxyType(inputs), outputs, blocks, MappingProxyType(attributes))

    def _argument(self, proto: Any, visible: frozenset[str] | set[str], where: str, block: Any) -> Argument:
        match proto.WhichOneof("binding"):
            case "name":
                name = str(proto.name)
                if name not in visible:
                    raise InvalidArgumentError(f"{where}: {_reason(name, block)}")
                return Name(name)
            case "value":
                return read_value(proto.value, self._weights, where)
            case _:
                raise InvalidArgumentError(f"{where}: an argument is neither a name nor a value")

    def _outputs(self, protos: Iterable[Any], where: str) -> tuple[Output, ...]:
        return tuple(Output(str(each.name), read_type(each.type, f"{where}, '{each.name}'")) for each in protos)

    def _define(self, names: set[str], outputs: Sequence[Output], where: str) -> None:
        for output in outputs:
            if not output.name:
                raise InvalidArgumentError(f"{where}: a value has no name")
            if output.name in names:
                raise InvalidArgumentError(f"{where}: '{output.name}' is defined twice")
            names.add(output.name)

    def _called(self, proto: Any) -> str:
        name = proto.outputs[0].name if proto.outputs else ""
        return f"{self._where}, operation '{name}' ({proto.type})"


def _reason(name: str, block: Any) -> str:
    later = any(output.name == name for operation in block.operations for output in operation.outputs)
    if later:
        return f"'{name}' is used before it is defined: the operations are out of order or form a cycle"
    return f"'{name}' is not defined"


def _check_rank(kind: Type, where: str) -> None:
    if isinstance(kind, TensorType) and kind.shape is not None and len(kind.shape) > _MAX_RANK:
        raise InvalidArgumentError(
            f"{where}: a tensor of {len(kind.shape)} dimensions, {list(kind.shape)}; Core ML has {_MAX_RANK} at most"
        )


def _check_const(
    attributes: Mapping[str, Constant],
    inputs: Mapping[str, tuple[Argument, ...]],
    outputs: tuple[Output, ...],
    where: str,
) -> None:
    if "val" not in attributes or len(outputs) != 1 or inputs:
        raise InvalidArgumentError(f"{where}: a const has one attribute 'val', one output and no inputs")
    value, kind = attributes["val"], outputs[0].type
    if not isinstance(kind, TensorType):
        return
    is_same_shape = kind.shape is None or (
        len(kind.shape) == len(value.shape)
        and all(want in (None, have) for want, have in zip(kind.shape, value.shape, strict=True))
    )
    if kind.dtype is not value.dtype or not is_same_shape:
        raise InvalidArgumentError(
            f"{where}: its value is {value.dtype.value}{list(value.shape)}, but its output is declared "
            f"{kind.dtype.value}{list(kind.shape or ())}"
        )
