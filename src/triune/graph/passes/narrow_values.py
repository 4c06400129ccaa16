"""Convert constants and inputs to the element types that Apple's runtimes compute in: int32 and fp32."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.graph.values import names_read_by, subgraphs_of
from triune.graph.weight_files import array_of

NARROWED: Mapping[int, int] = {
    TensorProto.DOUBLE: TensorProto.FLOAT,
    **dict.fromkeys(
        [
            *(TensorProto.INT64, TensorProto.INT16, TensorProto.INT8),
            *(TensorProto.UINT64, TensorProto.UINT32, TensorProto.UINT16, TensorProto.UINT8),
        ],
        TensorProto.INT32,
    ),
}
"""Maps each element type that is converted to the type that it becomes. All other types stay."""

_DEEPEST = 16
"""The largest number of operators in a row through which a constant is followed."""

_INT32 = np.iinfo(np.int32)

_ABOVE: Mapping[str, tuple[int, ...]] = {
    "Clip": (2,),
    "Min": (0, 1),
    **dict.fromkeys(["Greater", "LessOrEqual"], (1,)),
    **dict.fromkeys(["Less", "GreaterOrEqual"], (0,)),
}
"""By operator, the positions of operands in which any number above int32's range has the same effect as the largest
int32.
"""

_BELOW: Mapping[str, tuple[int, ...]] = {
    "Clip": (1,),
    "Max": (0, 1),
    **dict.fromkeys(["Greater", "LessOrEqual"], (0,)),
    **dict.fromkeys(["Less", "GreaterOrEqual"], (1,)),
}
"""By operator, the positions of operands in which any number below int32's range has the same effect as the lowest
int32.
"""


_COPIED_OPERANDS: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(["Identity", "Reshape", "Squeeze", "Unsqueeze", "Expand", "Transpose", "Gather", "Slice"], (0,)),
    **dict.fromkeys(["Concat", "Max", "Min"], ()),
    "Where": (1, 2),
}
"""Operators whose results are elements of the operands at these positions; of any operand if no positions are
listed.
"""


def narrow_array(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Convert an array for the input `name` to the element type that a converted model takes.

    Raises:
        InvalidArgumentError: a value does not fit into int32.
    """
    elem_type = NARROWED.get(helper.np_dtype_to_tensor_dtype(array.dtype))
    if elem_type is None:
        return array
    if (found := _outside(array)) is not None:
        raise InvalidArgumentError(f"input '{name}' holds {found}; the model computes in {_limits_of(elem_type)}")
    return array.astype(helper.tensor_dtype_to_np_dtype(elem_type))


def _limits_of(elem_type: int) -> str:
    if elem_type == TensorProto.INT32:
        return f"int32, from {_INT32.min} to {_INT32.max}"
    return f"fp32, up to {np.finfo(np.float32).max:.4g} either way"


def _outside(array: NDArray[Any]) -> int | float | None:
    """An element that is outside int32, or finite and outside fp32; None if all fit."""
    if array.dtype == np.float64:
        sizes = np.abs(array[np.isfinite(array)])
        largest = float(sizes.max(initial=0))
        return largest if largest > float(np.finfo(np.float32).max) else None
    if array.dtype.itemsize < 4 or array.dtype == np.int32 or not array.size:
        return None
    return next((int(end) for end in (array.min(), array.max()) if not _INT32.min <= int(end) <= _INT32.max), None)


def narrow_tensor(tensor: TensorProto, readers_of: Callable[[str], Sequence[NodeProto] | None] | None) -> TensorProto:
    """Convert a constant to int32 or fp32.

    Args:
        tensor: the constant.
        readers_of: returns the nodes that read a value, or None if they are not known. A number outside int32 is
            replaced by the largest or lowest int32 if that has the same effect on all readers, such as a Slice. If
            `readers_of` is None, a number outside int32 is an error.

    Raises:
        UnsupportedError: the constant does not fit.
    """
    elem_type = NARROWED.get(tensor.data_type)
    if elem_type is None:
        return tensor
    array = array_of(tensor)
    if (found := _outside(array)) is not None:
        if array.dtype.kind == "f" or readers_of is None or not _may_be_clipped(tensor.name, array, readers_of):
            raise UnsupportedError(
                f"constant '{tensor.name}' holds {found}, which does not fit into {_limits_of(elem_type)}: Apple's "
                "runtimes have nothing wider"
            )
        array = array.clip(_INT32.min, _INT32.max)
    narrow = array.astype(helper.tensor_dtype_to_np_dtype(elem_type))
    if array.dtype == np.float64:
        narrow = _without_new_zeros(tensor.name, array, narrow)
    return numpy_helper.from_array(narrow, tensor.name)


def _may_be_clipped(
    name: str, array: NDArray[Any], readers_of: Callable[[str], Sequence[NodeProto] | None], depth: int = 0
) -> bool:
    """Whether clipping `array` to int32 does not change the result of any consumer of the value `name`, such as a Slice
    whose end it is.

    A consumer that only copies elements is followed to its own consumers: Where(mask, 9223372036854775807, end) before
    a Slice.
    """
    readers = readers_of(name)
    if readers is None or depth > _DEEPEST:
        return False
    return all(
        _is_clipped_harmlessly(name, array, node)
        or _subgraphs_may_be_clipped(name, array, node, depth)
        or (
            _copies_elements(name, node)
            and all(_may_be_clipped(each, array, readers_of, depth + 1) for each in node.output if each)
        )
        for node in readers
    )


def _subgraphs_may_be_clipped(name: str, array: NDArray[Any], node: NodeProto, depth: int) -> bool:
    """Whether only subgraphs of `node` (the branches of an If, for example) read the value, and clipping is harmless
    there.
    """
    graphs = list(subgraphs_of(node))
    return (
        bool(graphs)
        and name not in node.input
        and all(_may_be_clipped(name, array, partial(_readers_in, graph), depth + 1) for graph in graphs)
    )


def _readers_in(graph: GraphProto, name: str) -> Sequence[NodeProto] | None:
    """The nodes of a subgraph that read a value, also by their own subgraphs; None if the value is an output of the
    subgraph.
    """
    if any(output.name == name for output in graph.output):
        return None
    return [node for node in graph.node if name in names_read_by(node)]


def _copies_elements(name: str, node: NodeProto) -> bool:
    positions = {position for position, read in enumerate(node.input) if read == name}
    found = _COPIED_OPERANDS.get(node.op_type)
    # If `positions` is empty, a subgraph of the node reads the constant, and the node itself does not copy it: return
    # False.
    return found is not None and bool(positions) and (not found or positions.issubset(found))


def _is_clipped_harmlessly(name: str, array: NDArray[Any], node: NodeProto) -> bool:
    """Whether clipping `array` to int32 changes nothing for the node that reads it."""
    if node.op_type == "Slice":
        # In a Slice, only `starts` and `ends` are clipped: exporters write the largest integer for "to the end".
        return name != node.input[0]
    positions = {position for position, read in enumerate(node.input) if read == name}
    harmless = [
        table
        for table, is_beyond in ((_ABOVE, array.max() > _INT32.max), (_BELOW, array.min() < _INT32.min))
        if is_beyond
    ]
    # If `positions` is empty, a subgraph of the node reads the constant: return False here, since
    # `_subgraphs_may_be_clipped` decides.
    return bool(positions) and all(positions.issubset(table.get(node.op_type, ())) for table in harmless)


def _without_new_zeros(name: str, array: NDArray[Any], narrow: NDArray[Any]) -> NDArray[Any]:
    """Replace numbers that fp32 rounds to 0 by its smallest normal number, so that a guard against division by 0 still
    works.

    Raises:
        UnsupportedError: all numbers would be 0, so that a quotient by the constant, or its logarithm, would be far
            off.
    """
    is_new_zero = (narrow == 0) & (array != 0)
    if not is_new_zero.any():
        return narrow
    if not narrow.any():
        found, tiny = array.reshape(-1)[int(is_new_zero.argmax())], float(np.finfo(np.float32).tiny)
        raise UnsupportedError(
            f"constant '{name}' holds {found:.4g}, which fp32 rounds to 0: Apple's runtimes compute in fp32; "
            f"give a number of at least {tiny:.4g}"
        )
    return np.where(is_new_zero, np.copysign(np.finfo(np.float32).tiny, array).astype(np.float32), narrow)
