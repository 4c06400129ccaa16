"""Predict by rules which compute unit an operation would run on.

The rules for the Neural Engine come from what others observed on Apple's devices; section 9 of the design names the
sources. An operation that no rule refuses is assumed to run there. The cheapest placement is not searched for: each
operation gets the first of the requested units that can run it.
"""

import math
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from enum import Enum

import numpy as np

from triune.coreml.mil import Array, Block, Constant, DType, Function, Name, Operation, TensorType, Type

_LARGEST_KERNEL = 15
_LARGEST_MAX_POOL = 8
_LARGEST_INNER = 32768
_LARGEST_DIMENSION = 65536
_FLOATS = {DType.FP16, DType.FP32, DType.FP64, DType.BF16}

_INTEGER_ARITHMETIC = {
    "add",
    "sub",
    "mul",
    "real_div",
    "floor_div",
    "mod",
    "pow",
    "maximum",
    "minimum",
    "abs",
    "sign",
    "square",
    "clip",
    "threshold",
    "reduce_sum",
    "reduce_max",
    "reduce_min",
    "reduce_mean",
}
_NEVER = {
    "asin",
    "acos",
    "tan",
    "sinh",
    "cosh",
    "atanh",
    "mod",
    "reduce_prod",
    "cumsum",
    "lstm",
    "gru",
    "rnn",
    "band_part",
    "one_hot",
    "non_zero",
    "range_1d",
    "random_bernoulli",
    "random_categorical",
    "random_normal",
    "random_uniform",
    "sliding_windows",
    "crop_resize",
}
_INDEXED = {"gather", "gather_along_axis", "gather_nd", "scatter", "scatter_along_axis", "scatter_nd"}
_STATES = {"read_state", "write_state", "coreml_update_state"}
# Operations that do not compute with tensors. The CPU runs them, whatever units are requested.
_CPU_ONLY = {
    "cond",
    "while_loop",
    "call",
    "classify",
    "shape",
    "make_list",
    "list_gather",
    "list_length",
    "list_read",
    "list_scatter",
    "list_write",
}
_LOADED_ONCE = "constexpr_"


class Unit(Enum):
    """A compute unit."""

    CPU = "cpu"
    GPU = "gpu"
    ANE = "ane"


# The units that each compute unit of coremltools allows, the preferred one first.
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
    reason = refusal(operation, values)
    takes = {
        Unit.ANE: not reason,
        Unit.GPU: operation.op not in _CPU_ONLY,
        Unit.CPU: True,
    }
    supported = tuple(unit for unit in ASKED[units] if takes[unit])
    return Placement(supported[0], supported, reason)


def refusal(operation: Operation, values: Values) -> str:
    """The reason why the Neural Engine cannot run an operation; empty if no rule refuses it."""
    return next((reason for rule in _RULES if (reason := rule(operation, values))), "")


def _never(operation: Operation, _: Values) -> str:
    if operation.op in _CPU_ONLY:
        return f"{operation.op} does not compute with tensors"
    if operation.op in _STATES:
        return "states do not run there"
    return f"{operation.op} does not run there" if operation.op in _NEVER else ""


def _dtype(operation: Operation, _: Values) -> str:
    for output in operation.outputs:
        if not isinstance(output.type, TensorType):
            return f"{output.name} is not a tensor"
        dtype = output.type.dtype
        if dtype in _FLOATS - {DType.FP16}:
            return f"{output.name} is {dtype.value}; it computes in fp16"
        if dtype not in _FLOATS and operation.op in _INTEGER_ARITHMETIC:
            return f"{operation.op} of {dtype.value}"
        if operation.op in ("reduce_argmax", "reduce_argmin"):
            return f"{operation.op} returns {dtype.value}"
    return ""


def _dynamic(operation: Operation, values: Values) -> str:
    if operation.op in _INDEXED and not values.is_known(operation, "indices"):
        return f"{operation.op} with indices that are computed"
    if operation.op in ("slice_by_index", "slice_by_size", "slice_update") and not values.is_known(operation, "begin"):
        return f"{operation.op} with a begin that is computed"
    return ""


def _limits(operation: Operation, values: Values) -> str:
    if operation.op in ("conv", "conv_transpose"):
        weight = values.tensor(operation, "weight")
        widest = max((size or 0 for size in (weight.shape or ())[2:]), default=0) if weight else 0
        if widest > _LARGEST_KERNEL:
            return f"a kernel of {widest}; {_LARGEST_KERNEL} is the widest"
    if operation.op == "max_pool":
        widest = max(values.integers(operation, "kernel_sizes"), default=0)
        if widest > _LARGEST_MAX_POOL:
            return f"a window of {widest}; {_LARGEST_MAX_POOL} is the widest"
    if operation.op in ("matmul", "linear"):
        x = values.tensor(operation, "x")
        inner = (x.shape[-1] or 0) if x and x.shape else 0
        if inner > _LARGEST_INNER:
            return f"an inner dimension of {inner}; {_LARGEST_INNER} is the largest"
    for output in operation.outputs:
        shape = output.type.shape if isinstance(output.type, TensorType) and output.type.shape else ()
        largest = max((size or 0 for size in shape), default=0)
        if largest > _LARGEST_DIMENSION:
            return f"a dimension of {largest}; {_LARGEST_DIMENSION} is the largest"
    return ""


_RULES: tuple[Callable[[Operation, Values], str], ...] = (_never, _dtype, _dynamic, _limits)


def _collect(block: Block, types: dict[str, Type], constants: dict[str, Array], known: set[str]) -> None:
    types.update({each.name: each.type for each in block.inputs})
    for operation in block.operations:
        types.update({each.name: each.type for each in operation.outputs})
        if is_loaded_once(operation):
            known.update(each.name for each in operation.outputs)
        value = operation.attributes.get("val")
        # Weights are not read here, so that they stay packed.
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
