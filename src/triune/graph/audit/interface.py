"""Find the inputs of an ONNX model for an audit: their shapes, and which values are valid or likely to reveal
faults.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TensorShapeProto, ValueInfoProto, helper

from triune.core.errors import UnsupportedError
from triune.graph.audit.centers import centers_of
from triune.graph.audit.inputs import Free, Input
from triune.graph.audit.uses import SAME, uses_of
from triune.graph.conversion.shapes import InputShape, Range, inputs_of
from triune.graph.values import Values, attributes_of, subgraphs_of
from triune.graph.weight_files import array_of

_MOST_NUMBERS = 16

_LARGEST = (1 << 31) - 1
"""The largest int32. Programs compute in int32, so a limit beyond it has no effect."""

_MOST_TRIED = 1 << 12
"""Integers below this are tried in `_inexact_in_fp32`: sizes and counts are rarely larger."""

_MOST_ELEMENTS = 1 << 20
"""Constants of more elements are not searched for their extremes."""

_WHOLE = frozenset(
    [
        *(TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64),
        *(TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64),
    ]
)

_BEYOND_INT32 = (1000, -3_000_000_000, 3_000_000_000, 1_700_000_000_000)
"""Numbers for floats that are cast to INT64: 1000, and numbers that fit into INT64 but not into int32; the last is a
time in milliseconds.
"""

_WIDE_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)

_ANY = TensorShapeProto.Dimension()

# Operators that read indices: the position of the indexed input, and the position of the indices.
_INDEXING: Mapping[str, tuple[int, int]] = {
    "Gather": (0, 1),
    "GatherElements": (0, 1),
    "GatherND": (0, 1),
    "ScatterElements": (0, 1),
    "ScatterND": (0, 1),
}


def inputs_of_model(
    model: ModelProto, shapes: Mapping[str, InputShape] | None = None, given: Collection[str] = ()
) -> list[Input]:
    """Find the inputs of a model that a caller must give.

    Args:
        model: a model whose shapes are inferred: the sizes of indexed dimensions are read from them.
        shapes: the limits that a user gave for free dimensions, by input.
        given: inputs that have values already; they are left out.

    Raises:
        UnsupportedError: an input is not a tensor of numbers, or its rank is unknown.
    """
    limits, numbers = _index_limits(model.graph), _numbers(model)
    ends = {**_ends(model.graph), **_large_floats(model.graph, limits)}
    uses, centers = uses_of(model.graph), centers_of(model)
    wanted = [value for value in inputs_of(model.graph) if value.name not in given]
    found = [_input(value, (shapes or {}).get(value.name), limits, numbers) for value in wanted]
    return [
        replace(
            each,
            ends=tuple(sorted(ends.get(each.name, ()))),
            uses=uses.get(each.name, each.uses),
            centers=tuple(centers.get(each.name, ())),
        )
        for each in found
    ]


def _numbers(model: ModelProto) -> tuple[float, ...]:
    """The absolute values of the constants of one element, if they are between 0.001 and a million: the smallest
    `_MOST_NUMBERS` of them, ascending.
    """
    values = Values(model.graph)
    found = {
        abs(float(array.reshape(())))
        for node in model.graph.node
        for name in node.input
        if (tensor := values.tensor(name)) is not None and math.prod(tensor.dims) == 1
        if (array := array_of(tensor)).dtype.kind in "iuf"
    }
    return tuple(sorted(number for number in found if 1e-3 < number < 1e6))[:_MOST_NUMBERS]


def _input(
    value: ValueInfoProto, given: InputShape | None, limits: Mapping[str, int], numbers: tuple[float, ...]
) -> Input:
    tensor = value.type.tensor_type
    if tensor.elem_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        raise UnsupportedError(
            f"input '{value.name}' is not a tensor of numbers, so values cannot be made up for it; give it with --input"
        )
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    if not tensor.HasField("shape") and given is None:
        raise UnsupportedError(
            f"the rank of input '{value.name}' is not known, so values cannot be made up for it; "
            "give its shape with --shape"
        )
    choices: list[tuple[int | Free, ...]] = []
    for choice in given.choices if given is not None else (None,):
        dims: list[int | Free] = []
        known = tensor.shape.dim if tensor.HasField("shape") else [_ANY] * len(choice or ())
        for axis, dim in enumerate(known):
            name = dim.dim_param or f"{value.name}/{axis}"
            if dim.HasField("dim_value") and dim.dim_value >= 0:
                dims.append(dim.dim_value)
            elif choice is None:
                dims.append(Free(name))
            else:
                limit = choice[axis]
                dims.append(Free(name, limit.low, limit.high) if isinstance(limit, Range) else limit)
        choices.append(tuple(dims))
    return Input(value.name, dtype, tuple(choices), limits.get(value.name), numbers)


def _index_limits(graph: GraphProto) -> dict[str, int]:
    """For each value that is an index, or from which an index is computed, the size of the smallest axis that it
    indexes.
    """
    limits: dict[str, int] = {}
    # Go from the last node to the first: the limit of a result is also a limit of the operands from which it is
    # computed.
    for values, node in reversed(list(_nodes(graph, Values(graph)))):
        found = _indexed(values, node)
        if found is not None:
            name, size = found
            limits[name] = min(size, limits.get(name, size))
        reached = [limits[name] for name in node.output if name in limits]
        for name in node.input if reached else ():
            if values.elem_type(name) in _WHOLE:
                limits[name] = min(*reached, limits.get(name, reached[0]))
    return limits


def _large_floats(graph: GraphProto, limits: Collection[str]) -> dict[str, set[int]]:
    """For each float input that is cast to INT64 but not used as an index: `_BEYOND_INT32`, numbers beyond int32 to
    try.
    """
    floats = [value.name for value in inputs_of(graph) if value.type.tensor_type.elem_type in _WIDE_FLOATS]
    sources = dict(zip(floats, floats, strict=True))
    found: dict[str, set[int]] = {}
    for _, node in _nodes(graph, Values(graph)):
        if node.op_type not in SAME or not node.input or node.input[0] not in sources:
            continue
        name = node.input[0]
        to = attributes_of(node).get("to")
        if to == TensorProto.INT64:
            if node.output[0] not in limits:
                found[sources[name]] = set(_BEYOND_INT32)
        elif node.op_type != "Cast" or to in _WIDE_FLOATS:
            sources[node.output[0]] = sources[name]
    return found


def _ends(graph: GraphProto) -> dict[str, set[int]]:
    """For each integer input, values that may reveal faults: the limits of a Clip, Max or Min; if the input is an index
    into a constant table, the indices of the table's largest and smallest element; and numbers whose product with a
    constant, or quotient by one, is rounded to another integer in fp32 than in fp64.

    Inputs are followed through operators that do not change their elements.
    """
    integers = [value.name for value in inputs_of(graph) if value.type.tensor_type.elem_type in _WHOLE]
    sources = dict(zip(integers, integers, strict=True))
    found: dict[str, set[int]] = {}
    for values, node in _nodes(graph, Values(graph)):
        for position, name in enumerate(node.input):
            if name not in sources:
                continue
            if node.op_type in SAME and position == 0:
                sources[node.output[0]] = sources[name]
            elif node.op_type in ("Clip", "Max", "Min"):
                others = [each for each in node.input if each and each != name]
                arrays = [array for each in others if (array := _small(values, each)) is not None]
                found.setdefault(sources[name], set()).update(
                    int(end) for array in arrays for end in (array.min(), array.max()) if -_LARGEST <= end <= _LARGEST
                )
            elif node.op_type == "Mul" or (node.op_type == "Div" and position == 0):
                factor = _small(values, node.input[1 - position])
                if factor is not None and factor.size == 1 and factor.dtype == np.float64:
                    found.setdefault(sources[name], set()).update(_inexact_in_fp32(factor.reshape(()), node.op_type))
            elif node.op_type == "Gather" and position == 1:
                table = _small(values, node.input[0])
                if table is not None and table.ndim:
                    axis = int(attributes_of(node).get("axis", 0))
                    rows = np.moveaxis(table, axis, 0).reshape(table.shape[axis], -1)
                    positions = {int(rows.max(axis=1).argmax()), int(rows.min(axis=1).argmin())}
                    found.setdefault(sources[name], set()).update(positions)
    return found


def _inexact_in_fp32(factor: NDArray[Any], op_type: str) -> list[int]:
    """Integers whose product with `factor`, or quotient by it, is rounded down or up to another integer in fp32 than in
    fp64.
    """
    numbers = np.arange(1.0, _MOST_TRIED)
    computed = np.multiply if op_type == "Mul" else np.divide
    with np.errstate(all="ignore"):
        exact = computed(numbers, factor)
        nearest = computed(numbers.astype(np.float32), factor.astype(np.float32))
    is_inexact = (np.floor(exact) != np.floor(nearest)) | (np.ceil(exact) != np.ceil(nearest))
    return [int(each) for each in numbers[is_inexact][:_MOST_NUMBERS]]


def _small(values: Values, name: str) -> NDArray[Any] | None:
    """The value of a constant of numbers that is not empty and not too large; else None."""
    tensor = values.tensor(name)
    if tensor is None or not 0 < math.prod(tensor.dims) <= _MOST_ELEMENTS or tensor.data_type == TensorProto.STRING:
        return None
    return array_of(tensor)


def _nodes(graph: GraphProto, values: Values) -> Iterator[tuple[Values, NodeProto]]:
    for node in graph.node:
        yield values, node
        for inner in subgraphs_of(node):
            yield from _nodes(inner, Values(inner, values))


def _indexed(values: Values, node: NodeProto) -> tuple[str, int] | None:
    """The name of the indices that a node reads, and the size of the smallest axis that they index; None if it reads
    none.
    """
    if node.op_type not in _INDEXING:
        return None
    data, indices = (node.input[position] for position in _INDEXING[node.op_type])
    shape = values.shape(data)
    if not shape:
        return None
    attributes = attributes_of(node)
    if node.op_type.endswith("ND"):
        start: int = attributes.get("batch_dims", 0)
        sizes = list(shape[start:])
    else:
        axis: int = attributes.get("axis", 0)
        sizes = [shape[axis]]
    # Count a free dimension as 1, the smallest size that it may have.
    return indices, min(1 if size is None else size for size in sizes)
