"""Makes sums of integers exact in OpenVINO, whose CPU plugin adds integers in fp32 (seen in 2026.4.1).

fp32 represents all integers up to 2^24. A product of integer matrices, a convolution or a sum whose numbers may be
larger is replaced: the axis is summed in parts whose sums stay below that, and numbers of more than 8 bits are split
into digits. The plugin computes Add, CumSum and shifts of integers in 32 bits. What cannot be replaced is refused.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from triune.core.errors import UnsupportedError
from triune.graph.exact_parts import MOST_EXACT, exact_parts
from triune.runtimes.openvino.library import opset
from triune.runtimes.openvino.whole_parts import (
    MOST_DIGIT,
    digits_of,
    in_parts,
    int32,
    joined,
    numbers,
    part_of,
    product_of_parts,
    shifted_left,
    size_of,
    sum_over,
    transposed,
)
from triune.runtimes.openvino.whole_ranges import constant_of, largest_of, range_of

_WIDTH: Final = 32
"""The number of bits of the integers that are summed, and of the result."""

_MOST_PARTS: Final = 64
"""If an axis of a known size would need more parts than this, it is summed in the same way as an axis of
unknown size.
"""


def make_sums_exact(model: Any) -> int:
    """Change the sums of integers of a model that fp32 may not represent exactly. Returns how many were changed.

    Args:
        model: an OpenVINO model; changed.

    Raises:
        UnsupportedError: a sum cannot be changed.
    """
    count = 0
    for node in model.get_ordered_ops():
        for body in _bodies(node):
            count += make_sums_exact(body)
        change = _CHANGES.get(node.get_type_name())
        if change is None or not node.get_output_element_type(0).is_integral():
            continue
        changed = change(node)
        if changed is None and not _is_read_as_float(node):
            changed = node.output(0)
        if changed is not None:
            _replace(node, changed)
            count += 1
    if count:
        model.validate_nodes_and_infer_types()
    return count


def _bodies(node: Any) -> list[Any]:
    match node.get_type_name():
        case "Loop" | "TensorIterator":
            return [node.get_function()]
        case "If":
            return [node.get_function(0), node.get_function(1)]
        case _:
            return []


def _is_read_as_float(node: Any) -> bool:
    """Whether a node's result is read only as an output of the model, or by conversions to floats."""
    readers = [each.get_node() for each in node.output(0).get_target_inputs()]
    return all(
        each.get_type_name() == "Result"
        or (each.get_type_name() == "Convert" and not each.get_output_element_type(0).is_integral())
        for each in readers
    )


def _replace(node: Any, value: Any) -> None:
    """Replace a node's result by `value` for all nodes that read it. A shift by 0 bits is put between them (see
    `shifted_left`).
    """
    kind, old = node.get_output_element_type(0), node.output(0)
    readers, names = old.get_target_inputs(), old.get_names()
    new = opset.convert(shifted_left(int32(value), 0), kind.get_type_name()).output(0)
    for reader in readers:
        reader.replace_source_output(new)
    old.get_tensor().set_names(set())
    new.get_tensor().set_names(names)
    new.get_node().set_friendly_name(node.get_friendly_name())


def _refuse(node: Any, why: str) -> UnsupportedError:
    return UnsupportedError(
        f"{node.get_type_name()} '{node.get_friendly_name()}' adds integers, which OpenVINO does in fp32, exact up to "
        f"2^24 only; {why}; serve the model with backend 'onnxruntime' on 'cpu'"
    )


def _matmul(node: Any) -> Any | None:
    left, right = (node.input_value(at) for at in (0, 1))
    terms = _terms(node, left, right)
    if terms is not None and largest_of(left) * largest_of(right) * terms <= MOST_EXACT:
        return None
    parts = _parts_of_constant(node, left, right)
    if parts is not None:
        # If one part is enough, change nothing: the plugin computes the product exactly as it is.
        return None if len(parts) == 1 else product_of_parts(int32(left), int32(right), parts, node.get_attributes())
    sums: list[tuple[Any, int]] = []
    for a, below_a, most_a in digits_of(int32(left), range_of(left)):
        for b, below_b, most_b in digits_of(int32(right), range_of(right)):
            if below_a + below_b < _WIDTH:
                step = MOST_EXACT // max(most_a * most_b, 1)
                sums.append((_product(node, a, b, terms, step), below_a + below_b))
    return joined(sums)


def _terms(node: Any, left: Any, right: Any) -> int | None:
    """The number of products in each sum of a MatMul; None if it is not known."""
    flags = node.get_attributes()
    found: list[int | None] = []
    for output, is_last in ((left, not flags["transpose_a"]), (right, flags["transpose_b"])):
        rank = output.get_partial_shape().rank
        if rank.is_dynamic:
            raise _refuse(node, f"how many axes '{output.get_node().get_friendly_name()}' has is not known")
        found.append(size_of(output, -1 if is_last or rank.get_length() == 1 else -2))
    return found[0] if found[0] is not None else found[1]


def _parts_of_constant(node: Any, left: Any, right: Any) -> list[slice] | None:
    """The parts of the summed axis in which a MatMul is exact, if an operand is a constant matrix of small numbers;
    else None.
    """
    largest = largest_of(left)
    if largest > MOST_DIGIT or largest_of(right) > MOST_DIGIT:
        return None
    matrix = constant_of(right)
    if matrix is None or matrix.ndim != 2 or np.abs(matrix).max(initial=0) > MOST_DIGIT:
        return None
    matrix = matrix.T if node.get_attributes()["transpose_b"] else matrix
    return exact_parts(matrix.astype(np.int16), largest) or [slice(0, 0)]


def _product(node: Any, a: Any, b: Any, terms: int | None, step: int) -> Any:
    """Build the MatMul of two INT32 values in parts: the summed axis is split into parts of `step` terms."""
    flags = node.get_attributes()
    if terms is not None and terms <= step * _MOST_PARTS:
        ends = range(0, max(terms, 1), step)
        return product_of_parts(a, b, [slice(at, min(at + step, terms)) for at in ends], flags)
    if any(x.get_partial_shape().rank.get_length() < 2 for x in (a, b)):
        raise _refuse(node, "the length of a vector is not known")
    rows = transposed(a, 0) if flags["transpose_a"] else a
    columns = b if flags["transpose_b"] else transposed(b, 0)
    products = opset.matmul(in_parts(rows, step), in_parts(columns, step), False, True).output(0)
    return sum_over(products, -3)


def _sum(node: Any) -> Any | None:
    """Build ReduceSum, or ReduceL1 as the sum of absolute values, from exact parts; None if that is not needed."""
    x = node.input_value(0)
    rank = x.get_partial_shape().rank
    if rank.is_dynamic:
        raise _refuse(node, "how many axes it has is not known")
    axes = _axes(node, rank.get_length())
    sizes = [size_of(x, axis) for axis in axes]
    known = [size for size in sizes if size is not None]
    if len(known) == len(sizes) and largest_of(x) * math.prod(known) <= MOST_EXACT:
        return None
    total = int32(x)
    if node.get_type_name() == "ReduceL1":
        total = opset.absolute(total).output(0)
    for axis in sorted(axes, reverse=True):
        total = sum_over(total, axis)
    if node.get_attributes()["keep_dims"] and axes:
        total = opset.unsqueeze(total, numbers(*sorted(axes))).output(0)
    return total


def _axes(node: Any, rank: int) -> list[int]:
    source = node.input_value(1).get_node()
    given = constant_of(node.input_value(1))
    if given is not None:
        return sorted({int(axis) % rank for axis in given.reshape(-1)}) if rank else []
    # A Range stands for all axes: OpenVINO's importer writes "all axes" as a Range up to the number of axes.
    if source.get_type_name() == "Range":
        return list(range(rank))
    raise _refuse(node, "its axes are not known")


def _convolution(node: Any) -> Any | None:
    """Build Convolution or GroupConvolution, whose kernel has an axis of groups first, from exact parts; None if that
    is not needed.
    """
    image, kernel = (node.input_value(at) for at in (0, 1))
    is_grouped = node.get_type_name() == "GroupConvolution"
    shape = kernel.get_partial_shape()
    most = largest_of(image) * largest_of(kernel)
    if shape.is_dynamic or most > MOST_DIGIT**2:
        raise _refuse(node, "the shape of its kernel is not known, or its numbers have more than 8 bits")
    sizes = list(shape.to_shape())
    axis = 2 if is_grouped else 1
    channels, area = sizes[axis], math.prod(sizes[axis + 1 :])
    if most * channels * area <= MOST_EXACT or _is_small(kernel, largest_of(image), axis):
        return None
    step = MOST_EXACT // (most * area)
    if not step:
        raise _refuse(node, f"its kernel has {area} elements, and {MOST_EXACT // most} are exact")
    x, w = int32(image), int32(kernel)
    sums: list[tuple[Any, int]] = []
    for start in range(0, channels, step):
        some = slice(start, min(start + step, channels))
        places = np.arange(sizes[0] if is_grouped else 1)[:, np.newaxis] * channels + np.arange(some.start, some.stop)
        part = opset.gather(x, numbers(*places.reshape(-1)), opset.constant(np.array(1, np.int64)))
        sums.append((_convolved(node, part, part_of(w, axis, some)), 0))
    return joined(sums)


def _is_small(kernel: Any, largest: int, axis: int) -> bool:
    """Whether the sums of a convolution are exact in fp32, because its kernel is constant and has small numbers.

    Args:
        kernel: the kernel.
        largest: the largest distance from 0 of the convolution's input.
        axis: the first of the kernel's axes that are summed.
    """
    array = constant_of(kernel)
    if array is None:
        return False
    axes = tuple(range(axis, array.ndim))
    return int(np.abs(array).sum(axis=axes).max(initial=0)) * largest <= MOST_EXACT


def _convolved(node: Any, x: Any, kernel: Any) -> Any:
    flags = node.get_attributes()
    make = opset.group_convolution if node.get_type_name() == "GroupConvolution" else opset.convolution
    return make(
        x, kernel, flags["strides"], flags["pads_begin"], flags["pads_end"], flags["dilations"], flags["auto_pad"]
    ).output(0)


def _einsum(node: Any) -> None:
    raise _refuse(node, "write it as MatMul and ReduceSum")


def _mean(node: Any) -> None:
    x = node.input_value(0)
    shape = x.get_partial_shape()
    if shape.is_dynamic or largest_of(x) * math.prod(shape.to_shape()) > MOST_EXACT:
        raise _refuse(node, "compute it in floats")


_CHANGES: Final[Mapping[str, Callable[[Any], Any | None]]] = {
    "MatMul": _matmul,
    "Convolution": _convolution,
    "GroupConvolution": _convolution,
    "ReduceSum": _sum,
    "ReduceL1": _sum,
    "ReduceMean": _mean,
    "Einsum": _einsum,
}
