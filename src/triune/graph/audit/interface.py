"""The interface of an ONNX model as an audit needs it: shapes, and which whole numbers are indices, of what size."""

import math
from collections.abc import Collection, Iterator, Mapping

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TensorShapeProto, ValueInfoProto, helper

from triune.core.errors import UnsupportedError
from triune.graph.audit.inputs import Free, Input
from triune.graph.conversion.shapes import InputShape, Range, inputs_of
from triune.graph.values import Values, attributes_of, subgraphs_of
from triune.graph.weight_files import array_of

_MOST_NUMBERS = 16

_ANY = TensorShapeProto.Dimension()

# Operators that read indices: the input that is indexed, and the one with the indices.
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
    """The inputs that a caller must give.

    Args:
        model: shapes are best inferred: what an index reads is looked for among them.
        shapes: the limits that a user gave for free dimensions, by input.
        given: inputs that have values, and are left out.

    Raises:
        UnsupportedError: an input is no tensor of numbers, or not even its rank is known.
    """
    limits, numbers = _index_limits(model.graph), _numbers(model)
    wanted = [value for value in inputs_of(model.graph) if value.name not in given]
    return [_input(value, (shapes or {}).get(value.name), limits, numbers) for value in wanted]


def _numbers(model: ModelProto) -> tuple[float, ...]:
    """Single numbers among the constants, of moderate size."""
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
        raise UnsupportedError(f"input '{value.name}' is no tensor of numbers, so no values can be made up for it")
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    if not tensor.HasField("shape") and given is None:
        raise UnsupportedError(f"the rank of input '{value.name}' is not known, so no values can be made up for it")
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
    """For values that are indices, or that indices are computed of: the least size that is indexed by them."""
    limits: dict[str, int] = {}
    # What the last nodes read is known first, and goes back to what those were made of.
    for values, node in reversed(list(_nodes(graph, Values(graph)))):
        found = _indexed(values, node)
        if found is not None:
            name, size = found
            limits[name] = min(size, limits.get(name, size))
        reached = [limits[name] for name in node.output if name in limits]
        for name in node.input if reached else ():
            if values.elem_type(name) in (TensorProto.INT64, TensorProto.INT32):
                limits[name] = min(*reached, limits.get(name, reached[0]))
    return limits


def _nodes(graph: GraphProto, values: Values) -> Iterator[tuple[Values, NodeProto]]:
    for node in graph.node:
        yield values, node
        for inner in subgraphs_of(node):
            yield from _nodes(inner, Values(inner, values))


def _indexed(values: Values, node: NodeProto) -> tuple[str, int] | None:
    """The indices that a node reads, and the size of what they index."""
    if node.op_type not in _INDEXING:
        return None
    data, indices = (node.input[place] for place in _INDEXING[node.op_type])
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
    # A free dimension has one element at least.
    return indices, min(1 if size is None else size for size in sizes)
