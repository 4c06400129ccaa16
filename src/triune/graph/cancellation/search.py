"""Follow each input of a model through nodes that compute each element from one element, to the sums whose terms cancel
for some numbers of the input.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto

from triune.core.datatypes import Array
from triune.graph.cancellation import elementwise, layout
from triune.graph.cancellation.curve import Curve, curve_of_input
from triune.graph.values import Values, attributes_of

_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)
_INTEGERS = (TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8, TensorProto.INT8, TensorProto.INT16)

_SIZES = 2.0 ** np.arange(-20, 24, 0.5)
"""The absolute values of input elements for which curves are computed first: from 1e-6 to 1e7."""

_ROUNDS = 4
"""The number of rounds of narrowing. Each makes the intervals of input numbers in which a sum changes its sign smaller
by a factor of 8.
"""

_PARTS = 8

_MOST_BRACKETS = 64
"""The largest number of sign changes of sums that are examined more closely for each input."""

_MOST_ELEMENTS = 1 << 17
"""The most elements that a `Curve` may have. If it would have more, fewer sign changes of the sums are examined."""

_MOST_CONSTANT = 1 << 14
"""A constant of more elements is not read, unless `can_sample` is set."""

_NUM_SAMPLED = 1 << 11
"""Constants of at most this many elements are read completely. Of larger ones, about this many elements are read."""

_MOST_NODES = 64
"""The longest chain of nodes, one after the other, through which an input is followed."""


def cancelling_curves(graph: GraphProto, values: Values, version: int, *, can_sample: bool = False) -> dict[str, Curve]:
    """Find the values that are computed elementwise from an input and depend on a sum that cancels for some numbers of
    the input. Returns samples (`Curve`) of these values, by name.

    The sampled input numbers are close to zeros of the sums, so that `Curve.lost` bounds the rounding error there.

    Args:
        graph: the main graph of a model, whose types are known.
        values: the types, shapes and constants of this graph.
        version: the operator set.
        can_sample: whether a large constant is read in part, at even distances along its longest axes. The curves'
            elements are then not in the places of the values' elements.
    """
    numbers: Array | None = np.concatenate([-_SIZES[::-1], _SIZES])
    found: dict[str, Curve] = {}
    for _ in range(_ROUNDS):
        found = _followed(graph, values, version, numbers, can_sample)
        numbers = _narrowed(found)
        if numbers is None:
            return {}
    return {name: curve for name, curve in found.items() if curve.is_zero.any()}


def first_elements(graph: GraphProto, values: Values) -> dict[str, int]:
    """Number the elements of all inputs of known shape one after the other. Returns the number of each input's first
    element.
    """
    sizes = {value.name: values.static_shape(value.name) for value in graph.input}
    known = {name: math.prod(shape) for name, shape in sizes.items() if shape is not None}
    return dict(zip(known, itertools.accumulate(known.values(), initial=0), strict=False))


def _narrowed(found: Mapping[str, Curve]) -> Array | None:
    """New input numbers between those at which a sum changes its sign, to come closer to its zeros; None if no sum
    changes its sign.
    """
    sums = [curve for curve in found.values() if curve.crossed is not None]
    brackets = sorted({bracket for curve in sums for bracket in curve.brackets()})
    if not brackets:
        return None
    largest = max(1, *(curve.values[0].size for curve in found.values()))
    most = int(np.clip(_MOST_ELEMENTS // (_PARTS * largest), 1, _MOST_BRACKETS))
    chosen = np.linspace(0, len(brackets) - 1, min(len(brackets), most)).astype(int)
    parts = [np.linspace(low, high, _PARTS + 1) for low, high in (brackets[int(each)] for each in chosen)]
    return np.unique(np.concatenate(parts))


def _followed(graph: GraphProto, values: Values, version: int, numbers: Array, can_sample: bool) -> dict[str, Curve]:
    """The curves of the inputs, sampled at `numbers`, and of all values that are computed elementwise from them."""
    first = first_elements(graph, values)
    found: dict[str, Curve] = {}
    for value in graph.input:
        name, kind, rank = value.name, value.type.tensor_type.elem_type, values.rank(value.name)
        if values.tensor(name) is None and kind in (*_FLOATS, *_INTEGERS) and rank is not None:
            found[name] = curve_of_input(name, first.get(name), rank, numbers, is_integer=kind in _INTEGERS)
    for node in graph.node:
        read = [found[name] for name in node.input if name in found]
        if read and len(read[0].nodes) < _MOST_NODES and node.domain in ("", "ai.onnx"):
            found |= _after(node, found, values, version, can_sample)
    return found


def _after(
    node: NodeProto, found: Mapping[str, Curve], values: Values, version: int, can_sample: bool
) -> Mapping[str, Curve]:
    """The curves of a node's results. At least one operand must have a curve. {} if the result's elements do not each
    depend on one element of one input.

    A sampled curve has only some elements, so that it cannot be followed through operators that move elements.
    """
    is_sampled = any(found[name].is_sampled for name in node.input if name in found)
    if is_sampled and node.op_type not in elementwise.OPERATORS:
        return {}
    if node.op_type in layout.OPERATORS:
        first = found.get(node.input[0])
        return {} if first is None else layout.reordered(node, first, values, version)
    if node.op_type in layout.SELECTIONS:
        first = found.get(node.input[0])
        result = None if first is None else layout.selected(node, first, values)
        return {} if result is None else {node.output[0]: result}
    operands = [found.get(name) for name in node.input]
    if node.op_type == "Concat":
        curves = [each for each in operands if each is not None]
        joined = layout.concatenated(node, curves, values) if len(curves) == len(operands) else None
        return {} if joined is None else {node.output[0]: joined}
    if node.op_type not in elementwise.OPERATORS:
        return {}
    # A value of unknown type is taken to be of floats.
    to = attributes_of(node)["to"] if node.op_type == "Cast" else values.elem_type(node.output[0]) or TensorProto.FLOAT
    if to not in (*_FLOATS, *_INTEGERS) or (to in _INTEGERS and values.elem_type(node.input[0]) not in _INTEGERS):
        return {}
    given: list[Curve | Array | None] = []
    # Skip the condition of a Where: it only chooses between elements.
    is_chosen = node.op_type == "Where"
    for name, curve in zip(node.input[is_chosen:], operands[is_chosen:], strict=True):
        array = _constant(values, name, can_sample) if name and curve is None else None
        if array is not None and can_sample and array.size > _NUM_SAMPLED:
            array, is_sampled = _sampled(array), True
        if name and curve is None and array is None:
            return {}
        given.append(array if curve is None else curve)
    if not any(isinstance(each, Curve) for each in given):
        return {}
    result = elementwise.computed(node, given)
    if result is None:
        return {}
    # A value of integers has no rounding errors in fp16.
    errors = 0 * result.errors if to in _INTEGERS else result.errors
    return {node.output[0]: replace(result, errors=errors, is_sampled=is_sampled)}


def _constant(values: Values, name: str, can_sample: bool) -> Array | None:
    tensor = values.tensor(name)
    if tensor is None or not math.prod(tensor.dims) or tensor.data_type == TensorProto.STRING:
        return None
    if not can_sample and math.prod(tensor.dims) > _MOST_CONSTANT:
        return None
    array = values.constant(name)
    return array if array is not None and array.dtype.kind in "iuf" and np.isfinite(array).all() else None


def _sampled(array: Array) -> Array:
    """Take elements of a large array at even distances: of its longest axis every second one, again and again, until at
    most `_NUM_SAMPLED` elements are left.

    Arrays of one shape are sampled in the same places.
    """
    sizes = list(array.shape)
    while math.prod(sizes) > _NUM_SAMPLED:
        longest = sizes.index(max(sizes))
        sizes[longest] = (sizes[longest] + 1) // 2
    for axis, size in enumerate(sizes):
        places = [index * array.shape[axis] // size for index in range(size)]
        array = np.take(array, places, axis=axis)
    return array
