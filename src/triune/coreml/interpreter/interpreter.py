"""Run the operations of a function in order, each with numpy."""

from collections import ChainMap
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np

from triune.core.errors import InvalidArgumentError, TriuneError, UnsupportedError, reworded
from triune.coreml.interpreter.operations import OPERATIONS
from triune.coreml.interpreter.values import Buffer, stored, widened
from triune.coreml.mil import Argument, Array, Block, Constant, Function, Name, Operation, StateType, TensorType
from triune.coreml.package import Package
from triune.coreml.parameters import PARAMETERS, PerSpatial, Required

# The value for each name: an array, list, buffer or string.
Scope: TypeAlias = MutableMapping[str, Any]

_VARIADIC = frozenset({"values", "loop_vars", "elem_shape", "ref_tensors", "begins", "ends", "end_masks"})
# Operations whose results are cast to the declared dtype. If one operand is an integer and the other a float, numpy
# returns floats, but MIL declares the dtype of the operand that is not constant.
_MIXED = frozenset({"linear", "matmul"})
# Exceptions that numpy and Python raise for values of a wrong type, size or range. Parameters are not checked one by
# one, so these are translated.
_UNSUITABLE = (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError)
# Operations that need the scope: control flow, states and constants.
_NEEDS_SCOPE = frozenset({"const", "cond", "while_loop", "read_state", "write_state"})


class Interpreter:
    """The reference executor of one function: an `Executor`.

    Operations on fp16 are computed in fp32 and rounded once, when their output is stored, as hardware does that
    accumulates in fp32.
    """

    def __init__(self, package: Package, function: str | None = None, *, is_exact: bool = False) -> None:
        """Check that all operations are known.

        Args:
            package: the model.
            function: the name of the function; the default function if None.
            is_exact: compute each operation in fp64, and round its result to its declared type.

        Raises:
            NotFoundError: there is no such function.
            UnsupportedError: an operation is not known.
            InvalidArgumentError: an operation lacks a parameter, or has one that it does not know.
        """
        self._function = package.function(function)
        self._is_exact = is_exact
        self._where = f"'{package.name}', function '{self._function.name}'"
        for operation in _all_operations(self._function.block):
            _check(operation, self._called(operation))

    def run(
        self, inputs: Mapping[str, Array], states: Mapping[str, Array]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Run the function once; `Executor.run` describes the arguments."""
        function: Function = self._function
        buffers: dict[str, Buffer] = {}
        scope: Scope = {}
        for value in function.inputs:
            is_state = isinstance(value.type, StateType)
            given = states if is_state else inputs
            if value.name not in given:
                raise InvalidArgumentError(f"{self._where}: no {'state' if is_state else 'input'} '{value.name}'")
            scope[value.name] = given[value.name]
            if isinstance(value.type, StateType):
                scope[value.name] = buffers[value.name] = Buffer(given[value.name], value.type.wrapped)
        # Infinities and NaN are correct results, so that numpy must not warn.
        with np.errstate(all="ignore"):
            outputs = self._run_block(function.block, scope)
        named = {name: np.array(value) for name, value in zip(function.block.outputs, outputs, strict=True)}
        return named, {name: np.array(buffer.array) for name, buffer in buffers.items()}

    def _run_block(self, block: Block, scope: Scope) -> list[Any]:
        for operation in block.operations:
            results = self._run_operation(operation, scope)
            if len(results) != len(operation.outputs):
                raise UnsupportedError(
                    f"{self._called(operation)}: {len(operation.outputs)} outputs are declared, {len(results)} computed"
                )
            for output, result in zip(operation.outputs, results, strict=True):
                scope[output.name] = stored(result, output.type, f"{self._called(operation)}, output '{output.name}'")
        return [scope[name] for name in block.outputs]

    def _run_operation(self, operation: Operation, scope: Scope) -> tuple[Any, ...]:
        match operation.op:
            case "const":
                return (operation.attributes["val"].value,)
            case "cond":
                branch = operation.blocks[0 if self._read(operation.inputs["pred"][0], scope) else 1]
                return tuple(self._run_block(branch, _inner(scope)))
            case "while_loop":
                return self._loop(operation, scope)
            case "read_state":
                return (self._buffer(operation, "input", scope).array,)
            case "write_state":
                buffer = self._buffer(operation, "input", scope)
                data = self._read(operation.inputs["data"][0], scope)
                buffer.array = stored(data, buffer.type, f"{self._called(operation)}, the state")
                return ()
            case _:
                return self._compute(operation, scope)

    def _loop(self, operation: Operation, scope: Scope) -> tuple[Any, ...]:
        condition, body = operation.blocks
        values = [self._read(each, scope) for each in operation.inputs["loop_vars"]]
        while True:
            (goes_on,) = self._run_block(condition, _inner(scope, condition, values))
            if not goes_on:
                return tuple(values)
            values = self._run_block(body, _inner(scope, body, values))

    def _compute(self, operation: Operation, scope: Scope) -> tuple[Any, ...]:
        values = dict(PARAMETERS[operation.op])
        exact = self._is_exact
        values |= {name: widened(constant.value, is_exact=exact) for name, constant in _attributes(operation)}
        for name, arguments in operation.inputs.items():
            read = tuple(widened(self._read(each, scope), is_exact=exact) for each in arguments)
            values[name] = read if name in _VARIADIC else read[0]
        for name, value in values.items():
            if isinstance(value, PerSpatial):
                values[name] = np.full(value.count * (values["x"].ndim - 2), value.value, np.int32)
        try:
            result = OPERATIONS[operation.op](**values)
        except TriuneError as error:
            raise reworded(error, f"{self._called(operation)}: {error}") from error
        except _UNSUITABLE as error:
            raise InvalidArgumentError(
                f"{self._called(operation)}: its inputs do not fit the operation: {error}"
            ) from error
        if operation.op in _MIXED and isinstance(kind := operation.outputs[0].type, TensorType):
            result = np.asarray(result).astype(kind.dtype.numpy)
        return cast(tuple[Any, ...], result) if isinstance(result, tuple) else (result,)

    def _read(self, argument: Argument, scope: Scope) -> Any:
        return argument.value if isinstance(argument, Constant) else scope[argument.name]

    def _buffer(self, operation: Operation, parameter: str, scope: Scope) -> Buffer:
        (argument,) = operation.inputs[parameter]
        value = scope[argument.name] if isinstance(argument, Name) else None
        if not isinstance(value, Buffer):
            raise InvalidArgumentError(f"{self._called(operation)}: its parameter '{parameter}' is not a state")
        return value

    def _called(self, operation: Operation) -> str:
        return f"{self._where}, operation '{operation.name}' ({operation.op})"


def _inner(scope: Scope, block: Block | None = None, values: Sequence[Any] = ()) -> Scope:
    """The scope of a block within an operation, with `values` for the inputs of the block."""
    inner: Scope = ChainMap({}, scope)
    if block is not None:
        inner.update(zip((each.name for each in block.inputs), values, strict=True))
    return inner


def _all_operations(block: Block) -> Iterator[Operation]:
    for operation in block.operations:
        yield operation
        for inner in operation.blocks:
            yield from _all_operations(inner)


def _attributes(operation: Operation) -> Iterator[tuple[str, Constant]]:
    """Yield the parameters that constexpr operations have as attributes, as iOS 16 writes them."""
    if operation.op.startswith("constexpr_"):
        yield from ((name, constant) for name, constant in operation.attributes.items() if name not in ("name", "val"))


def _check(operation: Operation, called: str) -> None:
    op = operation.op
    if op not in PARAMETERS or not (op in OPERATIONS or op in _NEEDS_SCOPE):
        raise UnsupportedError(f"{called}: the interpreter does not know the operation '{op}'")
    given = {*operation.inputs, *(name for name, _ in _attributes(operation))}
    known = PARAMETERS[op]
    unknown = sorted(given - known.keys())
    if unknown:
        raise InvalidArgumentError(f"{called}: it has no parameter '{unknown[0]}'; it has {sorted(known)}")
    if op == "const":
        return
    for name, default in known.items():
        if isinstance(default, Required) and name not in given:
            raise InvalidArgumentError(f"{called}: its parameter '{name}' is missing")
    for name, arguments in operation.inputs.items():
        if name not in _VARIADIC and len(arguments) != 1:
            raise InvalidArgumentError(f"{called}: its parameter '{name}' has {len(arguments)} values; it takes one")
    num_blocks = {"cond": 2, "while_loop": 2}.get(op, 0)
    if len(operation.blocks) != num_blocks:
        raise InvalidArgumentError(f"{called}: it has {len(operation.blocks)} blocks; it takes {num_blocks}")
