"""Predict by rules which compute unit an operation would run on.

The rules are those of `hardware.rules`. An operation that no rule refuses is assumed to run on a unit. The cheapest
placement is not searched for: each operation gets the first of the requested units that can run it.
"""

import math
from collections.abc import Mapping, Set
from dataclasses import dataclass

import numpy as np

from triune.core.units import Unit
from triune.coreml.mil import Array, Block, Constant, DType, Function, Name, Operation, TensorType, Type
from triune.hardware.rules import Facts
from triune.hardware.rules import refusal as hardware_refusal

_FLOATS: Mapping[DType, str] = {DType.FP16: "fp16", DType.FP32: "fp32", DType.FP64: "fp64", DType.BF16: "bf16"}
# For each operation, the parameter with indices or with the beginning of a slice.
_INDEX: Mapping[str, str] = {
    "gather": "indices",
    "gather_along_axis": "indices",
    "gather_nd": "indices",
    "slice_by_index": "begin",
    "slice_by_size": "begin",
    "slice_update": "begin",
}
_LOADED_ONCE = "constexpr_"


# For each compute unit setting of coremltools, the units that it allows, in the order of preference.
ASKED: Mapping[str, tuple[Unit, ...]] = {
    "CPU_ONLY": (Unit.CPU,),
    "CPU_AND_GPU": (Unit.GPU, Unit.CPU),
    "CPU_AND_NE": (Unit.ANE, Unit.CPU),
    "ALL": (Unit.ANE, Unit.GPU, Unit.CPU),
}


@dataclass(frozen=True, slots=True)
class Placement:
    """The predicted placement of an operation.

    Attributes:
        preferred: the first of `supported`.
        supported: the requested units that can run the operation, the preferred one first.
        refusal: the reason why the Neural Engine cannot run the operation; empty if it can.
    """

    preferred: Unit
    supported: tuple[Unit, ...]
    refusal: str


@dataclass(frozen=True, slots=True)
class Values:
    """The types and constants of a function's values, known before it runs.

    Attributes:
        types: the types of all values, including those in nested blocks.
        constants: the arrays of constants.
        known: the names of values that are known when the model is loaded: constants and weights.
    """

    types: Mapping[str, Type]
    constants: Mapping[str, Array]
    known: Set[str]

    def is_known(self, operation: Operation, parameter: str) -> bool:
        """Whether an argument is not given, or is known when the model is loaded."""
        arguments = operation.inputs.get(parameter, ())
        return all(isinstance(each, Constant) or each.name in self.known for each in arguments)

    def integers(self, operation: Operation, parameter: str) -> tuple[int, ...]:
        """The elements of an argument that is known; empty if it is not given or not known."""
        for each in operation.inputs.get(parameter, ()):
            if isinstance(each, Constant):
                return tuple(int(element) for element in each.array.ravel())
            if each.name in self.constants:
                return tuple(int(element) for element in self.constants[each.name].ravel())
        return ()

    def tensor(self, operation: Operation, parameter: str) -> TensorType | None:
        """The type of an argument, if it is a tensor of known rank; else None."""
        for each in operation.inputs.get(parameter, ()):
            if isinstance(each, Constant):
                return TensorType(each.dtype, each.shape)
            kind = self.types.get(each.name)
            return kind if isinstance(kind, TensorType) and kind.shape is not None else None
        return None


def values_of(function: Function) -> Values:
    """Collect the types and constants of a function's values."""
    types: dict[str, Type] = {each.name: each.type for each in function.inputs}
    constants: dict[str, Array] = {}
    known: set[str] = set()
    _collect(function.block, types, constants, known)
    return Values(types, constants, known)


def is_loaded_once(operation: Operation) -> bool:
    """Whether an operation only loads a weight. It then runs before the first prediction, and on no unit."""
    return operation.op == "const" or operation.op.startswith(_LOADED_ONCE)


def place(operation: Operation, values: Values, units: str) -> Placement:
    """Predict where an operation runs.

    Args:
        operation: an operation for which `is_loaded_once` is false.
        values: the values of its function.
        units: the name of a coremltools compute unit.
    """
    facts = facts_of(operation, values)
    refusals = {unit: hardware_refusal(facts, unit, "mil") for unit in ASKED[units]}
    # At least one unit remains: every setting allows the CPU, which can run every operation.
    supported = tuple(unit for unit in ASKED[units] if refusals[unit] is None)
    return Placement(supported[0], supported, refusal(operation, values))


def refusal(operation: Operation, values: Values) -> str:
    """The reason why the Neural Engine cannot run an operation; empty if no rule refuses it."""
    found = hardware_refusal(facts_of(operation, values), Unit.ANE, "mil")
    return found.reason if found else ""


def facts_of(operation: Operation, values: Values) -> Facts:
    """What the rules of `hardware.rules` ask of an operation: operator, dtype, shapes, kernel and more, as `Facts`.

    `is_loaded_once` must be false for the operation.
    """
    kinds = [each.type for each in operation.outputs]
    tensors = [kind for kind in kinds if isinstance(kind, TensorType)]
    read = [values.types.get(name) for name in argument_names(operation) if name not in values.known]
    integers = [
        kind.dtype
        for kind in (*tensors, *read)
        if isinstance(kind, TensorType) and kind.dtype not in _FLOATS and kind.dtype is not DType.BOOL
    ]
    floats = [_FLOATS[kind.dtype] for kind in tensors if kind.dtype in _FLOATS]
    # If an operand or a result has a float type other than fp16, that type is the operation's.
    wide = next((dtype for dtype in floats if dtype != "fp16"), "")
    dtype = integers[0].value if integers else wide or next(iter(floats), "bool")
    weight = values.tensor(operation, "weight")
    kernel = values.integers(operation, "kernel_sizes")
    if operation.op in ("conv", "conv_transpose") and weight and weight.shape:
        kernel = tuple(size or 0 for size in weight.shape[2:])
    x = values.tensor(operation, "x") if operation.op in ("matmul", "linear") else None
    return Facts(
        op=operation.op,
        name=operation.outputs[0].name if operation.outputs else operation.name,
        dtype=dtype,
        shapes=tuple(tuple(size or 1 for size in kind.shape) for kind in tensors if kind.shape is not None),
        kernel=kernel,
        inner=(x.shape[-1] or 0) if x and x.shape else 0,
        has_integers=bool(integers),
        has_computed_index=operation.op in _INDEX and not values.is_known(operation, _INDEX[operation.op]),
    )


def _collect(block: Block, types: dict[str, Type], constants: dict[str, Array], known: set[str]) -> None:
    types.update({each.name: each.type for each in block.inputs})
    for operation in block.operations:
        types.update({each.name: each.type for each in operation.outputs})
        if is_loaded_once(operation):
            known.update(each.name for each in operation.outputs)
        value = operation.attributes.get("val")
        # Leave out weights, so that they need not be read from their file.
        if operation.op == "const" and value is not None and isinstance(value.stored, np.ndarray):
            constants[operation.name] = value.stored
        for nested in operation.blocks:
            _collect(nested, types, constants, known)


def num_elements(kind: Type | None) -> int:
    """The number of elements of a tensor; unknown dimensions count as 1."""
    if not isinstance(kind, TensorType) or kind.shape is None:
        return 1
    return math.prod(size or 1 for size in kind.shape)


def argument_names(operation: Operation) -> list[str]:
    """The names of the values that an operation reads."""
    return [each.name for arguments in operation.inputs.values() for each in arguments if isinstance(each, Name)]
