"""Convert constants and inputs to the element types that Apple's runtimes compute in: int32 and fp32."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from triune.core.errors import InvalidArgumentError, UnsupportedError
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
"""The element type that each of these types becomes; others stay."""

_DEEPEST = 16
"""The most operators in a row through which a limit is followed."""

_INT32 = np.iinfo(np.int32)

_ABOVE: Mapping[str, tuple[int, ...]] = {
    "Clip": (2,),
    "Min": (0, 1),
    **dict.fromkeys(["Greater", "LessOrEqual"], (1,)),
    **dict.fromkeys(["Less", "GreaterOrEqual"], (0,)),
}
"""The operands for which a number above int32 means the same as the largest int32."""

_BELOW: Mapping[str, tuple[int, ...]] = {
    "Clip": (1,),
    "Max": (0, 1),
    **dict.fromkeys(["Greater", "LessOrEqual"], (0,)),
    **dict.fromkeys(["Less", "GreaterOrEqual"], (1,)),
}
"""The operands for which a number below int32 means the same as the smallest int32."""


_HANDS_ON: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(["Identity", "Reshape", "Squeeze", "Unsqueeze", "Expand", "Transpose", "Gather", "Slice"], (0,)),
    **dict.fromkeys(["Concat", "Max", "Min"], ()),
    "Where": (1, 2),
}
"""Operators whose results are elements of these operands, or of all of them if none is named."""


def narrow_array(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """The array for input `name`, converted to the element type that a narrowed model takes.

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
    """An element that does not fit into the narrow type, or None. Infinity fits."""
    if array.dtype == np.float64:
        sizes = np.abs(array[np.isfinite(array)])
        largest = float(sizes.max(initial=0))
        return largest if largest > float(np.finfo(np.float32).max) else None
    if array.dtype.itemsize < 4 or array.dtype == np.int32 or not array.size:
        return None
    return next((int(end) for end in (array.min(), array.max()) if not _INT32.min <= int(end) <= _INT32.max), None)


def narrow_tensor(tensor: TensorProto, readers_of: Callable[[str], Sequence[NodeProto] | None] | None) -> TensorProto:
    """A constant converted to its narrow type.

    Args:
        tensor: the constant.
        readers_of: returns the nodes that read a value, or None where they are not known. A number beyond int32 is
            allowed only if it means the same to all readers as the end of int32. If `readers_of` is None, none is
            allowed.

    Raises:
        UnsupportedError: the constant does not fit.
    """
    elem_type = NARROWED.get(tensor.data_type)
    if elem_type is None:
        return tensor
    array = array_of(tensor)
    if (found := _outside(array)) is not None:
        if array.dtype.kind == "f" or readers_of is None or not _is_only_a_limit(tensor.name, array, readers_of):
            raise UnsupportedError(
                f"constant '{tensor.name}' holds {found}, which does not fit into {_limits_of(elem_type)}: Apple's "
                "runtimes have nothing wider"
            )
        array = array.clip(_INT32.min, _INT32.max)
    narrow = array.astype(helper.tensor_dtype_to_np_dtype(elem_type))
    if array.dtype == np.float64:
        narrow = _without_zeros_made(tensor.name, array, narrow)
    return numpy_helper.from_array(narrow, tensor.name)


def _is_only_a_limit(
    name: str, array: NDArray[Any], readers_of: Callable[[str], Sequence[NodeProto] | None], depth: int = 0
) -> bool:
    """Whether, to all readers of a value, the ends of int32 mean the same as numbers of `array` beyond them.

    A reader that only copies the numbers counts if all of its own readers do: `Where(mask, 9223372036854775807, end)`
    before a Slice.
    """
    readers = readers_of(name)
    if readers is None or depth > _DEEPEST:
        return False
    return all(
        _is_limit(name, array, node)
        or (
            _hands_on(name, node)
            and all(_is_only_a_limit(each, array, readers_of, depth + 1) for each in node.output if each)
        )
        for node in readers
    )


def _hands_on(name: str, node: NodeProto) -> bool:
    positions = {position for position, read in enumerate(node.input) if read == name}
    found = _HANDS_ON.get(node.op_type)
    # If `positions` is empty, a subgraph reads the constant.
    return found is not None and bool(positions) and (not found or positions.issubset(found))


def _is_limit(name: str, array: NDArray[Any], node: NodeProto) -> bool:
    """Whether the ends of int32 mean the same to a node as numbers beyond them."""
    if node.op_type == "Slice":
        # Exporters write "to the end" as the largest integer.
        return name != node.input[0]
    positions = {position for position, read in enumerate(node.input) if read == name}
    harmless = [
        table
        for table, is_beyond in ((_ABOVE, array.max() > _INT32.max), (_BELOW, array.min() < _INT32.min))
        if is_beyond
    ]
    # If `positions` is empty, a subgraph reads the constant.
    return bool(positions) and all(positions.issubset(table.get(node.op_type, ())) for table in harmless)


def _without_zeros_made(name: str, array: NDArray[Any], narrow: NDArray[Any]) -> NDArray[Any]:
    """Replace numbers that became 0 in fp32 by its smallest normal number, so that a guard against division by 0 still
    works.

    Raises:
        UnsupportedError: all numbers became 0: a quotient by the constant, or its logarithm, would be far off.
    """
    is_made = (narrow == 0) & (array != 0)
    if not is_made.any():
        return narrow
    if not narrow.any():
        found, tiny = array.reshape(-1)[int(is_made.argmax())], float(np.finfo(np.float32).tiny)
        raise UnsupportedError(
            f"constant '{name}' holds {found:.4g}, which is zero in fp32, from {tiny:.4g} upwards: Apple's runtimes "
            "have nothing wider; write a larger number"
        )
    return np.where(is_made, np.copysign(np.finfo(np.float32).tiny, array).astype(np.float32), narrow)
