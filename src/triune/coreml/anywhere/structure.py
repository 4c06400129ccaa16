"""The structure of a program as coremltools' `MLModelStructure`. Each operation in it has a key for compute plans."""

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from triune.coreml.mil import Argument, Block, Function, Name, Operation, Output, Program


@dataclass(frozen=True, slots=True)
class OperationProxy:
    """The key of an operation in an `MLModelStructure`, equal for each reading of the same model.

    Attributes:
        function: the name of its function.
        output: the name of its first output, which is unique in the function.
    """

    function: str
    output: str


class LayerProxy:
    """The key of a layer of a neural network. There are none, since Triune reads only ML Programs."""


def structure_of(program: Program) -> Any:
    """The `MLModelStructure` of a program."""
    api: Any = importlib.import_module("coremltools.models.compute_plan")
    functions = {name: _function(api, function) for name, function in program.functions.items()}
    return api.MLModelStructure(
        neuralnetwork=None, program=api.MLModelStructureProgram(functions=functions), pipeline=None
    )


def _function(api: Any, function: Function) -> Any:
    return api.MLModelStructureProgramFunction(
        inputs=_named(api, function.inputs), block=_block(api, function.name, function.block)
    )


def _block(api: Any, function: str, block: Block) -> Any:
    return api.MLModelStructureProgramBlock(
        inputs=_named(api, block.inputs),
        operations=[_operation(api, function, each) for each in block.operations],
        output_names=list(block.outputs),
    )


def _operation(api: Any, function: str, operation: Operation) -> Any:
    return api.MLModelStructureProgramOperation(
        inputs=_arguments(api, operation.inputs),
        operator_name=operation.op,
        outputs=_named(api, operation.outputs),
        blocks=[_block(api, function, each) for each in operation.blocks],
        __proxy__=OperationProxy(function, operation.name),
    )


def _arguments(api: Any, inputs: Mapping[str, tuple[Argument, ...]]) -> dict[str, Any]:
    return {
        name: api.MLModelStructureProgramArgument(bindings=[_binding(api, each) for each in arguments])
        for name, arguments in inputs.items()
    }


def _binding(api: Any, argument: Argument) -> Any:
    if isinstance(argument, Name):
        return api.MLModelStructureProgramBinding(name=argument.name, value=None)
    return api.MLModelStructureProgramBinding(name=None, value=api.MLModelStructureProgramValue())


def _named(api: Any, values: Iterable[Output]) -> list[Any]:
    kind = api.MLModelStructureProgramValueType()
    return [api.MLModelStructureProgramNamedValueType(name=each.name, type=kind) for each in values]
