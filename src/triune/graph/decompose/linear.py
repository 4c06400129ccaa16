"""Sums of products (Einsum, DFT, STFT, Det of small matrices), and logarithms of sums (ReduceLogSum,
ReduceLogSumExp).
"""

import itertools
from collections.abc import Sequence

import numpy as np
from onnx import TensorProto, helper

from triune.graph.decompose.context import Context, Decomposition

MAX_DETERMINANT = 4
"""The largest size of a matrix for Det: Leibniz's formula has n! terms."""

_SMALL_INTEGERS = (TensorProto.INT8, TensorProto.INT16, TensorProto.UINT8, TensorProto.UINT16)
"""Types that Einsum supports, but MatMul and ReduceSum do not. They are summed in INT32, and the result is cast back,
which wraps around.
"""


def einsum(c: Context) -> bool:
    """Einsum, two operands at a time: a MatMul sums over shared labels that are no longer needed, batched over other
    shared ones.
    """
    ranks = [c.values.rank(name) for name in c.node.input]
    if any(rank is None for rank in ranks):
        return False
    terms, result = _labels(c.attributes["equation"], [rank for rank in ranks if rank is not None])
    operands: list[tuple[str, str]] = []
    elem_type = c.values.elem_type(c.input(0))
    is_small = elem_type in _SMALL_INTEGERS
    for name, labels in zip(c.node.input, terms, strict=True):
        diagonal = _diagonals(c, name, labels)
        if diagonal is None:
            return False
        name, labels = diagonal
        operands.append((c.build.cast(name, TensorProto.INT32) if is_small else name, labels))
    while len(operands) > 1:
        (left, left_labels), (right, right_labels), *rest = operands
        needed = {label for _, labels in rest for label in labels} | set(result)
        operands = [_product(c, left, left_labels, right, right_labels, needed), *rest]
    name, labels = _sum_out(c, *operands[0], set(result))
    name = c.build.cast(name, elem_type) if is_small else name
    order = [labels.index(label) for label in result]
    c.give(name if order == sorted(order) else c.build.op("Transpose", name, perm=order))
    return True


def _labels(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """The labels of each operand and of the result. An ellipsis is replaced by unused letters."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    free = [label for label in map(chr, range(0x100, 0x180)) if label not in equation]
    num_ellipsis = max(
        (rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True) if "..." in term),
        default=0,
    )
    ellipsis = "".join(free[:num_ellipsis])
    written: list[str] = []
    for term, rank in zip(terms, ranks, strict=True):
        count = rank - len(term.replace("...", ""))
        written.append(term.replace("...", ellipsis[num_ellipsis - count :] if count else ""))
    if arrow:
        return written, right.replace("...", ellipsis)
    letters = "".join(term.replace("...", "") for term in terms)
    sorted_unique = sorted(label for label in set(letters) if letters.count(label) == 1)
    return written, ellipsis + "".join(sorted_unique)


def _diagonals(c: Context, name: str, labels: str) -> tuple[str, str] | None:
    """Take the diagonal of an operand that has a label twice, such as "ii": the elements whose two indices are equal.

    None if the size of the diagonal is not known, or if several labels occur twice.
    """
    b = c.build
    for label in set(labels):
        while labels.count(label) > 1:
            shape = c.values.shape(name) if name in c.node.input else None
            first, second = [position for position, each in enumerate(labels) if each == label][:2]
            if shape is None or len(labels) != len(shape):
                return None
            count = shape[second] if shape[first] is None else shape[first]
            if count is None:
                return None
            rest = [position for position in range(len(labels)) if position not in (first, second)]
            moved = b.op("Transpose", name, perm=[first, second, *rest])
            picks = np.repeat(np.arange(count)[:, None], 2, axis=1)
            name = b.op("GatherND", moved, b.constant(picks, np.int64))
            labels = label + "".join(labels[position] for position in rest)
            if any(labels.count(each) > 1 for each in labels):
                return None
    return name, labels


def _sum_out(c: Context, name: str, labels: str, needed: set[str]) -> tuple[str, str]:
    gone = [position for position, label in enumerate(labels) if label not in needed]
    if not gone:
        return name, labels
    name = c.build.op("ReduceSum", name, c.build.ints(*gone), keepdims=0)
    return name, "".join(label for label in labels if label in needed)


def _product(c: Context, left: str, a: str, right: str, b_labels: str, needed: set[str]) -> tuple[str, str]:
    """Reshape both operands to [batch, rows, summed] and [batch, summed, columns], multiply, and restore the axes."""
    b = c.build
    left, a = _sum_out(c, left, a, needed | set(b_labels))
    right, b_labels = _sum_out(c, right, b_labels, needed | set(a))
    both = [label for label in a if label in b_labels]
    batch = [label for label in both if label in needed]
    summed = [label for label in both if label not in needed]
    rows = [label for label in a if label not in b_labels]
    columns = [label for label in b_labels if label not in a]
    sizes: dict[str, str] = {}
    for name, labels in ((left, a), (right, b_labels)):
        shape = b.op("Shape", name)
        for position, label in enumerate(labels):
            size = b.op("Gather", shape, b.ints(position))
            sizes[label] = b.op("Max", sizes[label], size) if label in sizes else size

    def arrange(name: str, labels: str, groups: Sequence[Sequence[str]]) -> str:
        flat = [label for group in groups for label in group]
        moved = b.op("Transpose", name, perm=[labels.index(label) for label in flat]) if flat else name
        wide = b.op("Expand", moved, joined([[label] for label in flat])) if flat else moved
        return b.op("Reshape", wide, joined(groups))

    def joined(groups: Sequence[Sequence[str]]) -> str:
        parts: list[str] = []
        for group in groups:
            total = b.ints(1)
            for label in group:
                total = b.op("Mul", total, sizes[label])
            parts.append(total)
        return b.op("Concat", *parts, axis=0)

    product = b.op(
        "MatMul", arrange(left, a, [batch, rows, summed]), arrange(right, b_labels, [batch, summed, columns])
    )
    labels = [*batch, *rows, *columns]
    target = joined([[label] for label in labels]) if labels else b.constant(np.empty(0), np.int64)
    return b.op("Reshape", product, target), "".join(labels)


def dft(c: Context) -> bool:
    """DFT of a known length n: a product with the matrix of roots of unity, exp(-2 pi i j k / n)."""
    b, x = c.build, c.input(0)
    shape = c.values.shape(x)
    axis_array = c.values.constant(c.input(2)) if c.input(2) else np.array(-2)
    length_array = c.values.constant(c.input(1)) if c.input(1) else None
    if shape is None or axis_array is None or (c.input(1) and length_array is None):
        return False
    axis = int(axis_array.reshape(-1)[0]) % len(shape)
    given = shape[axis]
    if given is None or shape[-1] is None:
        return False
    is_inverse, is_onesided = bool(c.attributes.get("inverse", 0)), bool(c.attributes.get("onesided", 0))
    is_real = shape[-1] == 1
    # The inverse DFT of a one-sided spectrum of n bins gives 2 * (n - 1) real numbers.
    is_half = is_inverse and is_onesided
    num_given = 2 * (given - 1) if is_half else given
    length = num_given if length_array is None else int(length_array.reshape(-1)[0])
    dtype = helper.tensor_dtype_to_np_dtype(c.values.elem_type(x))
    kept = length // 2 + 1 if is_onesided and not is_inverse else length
    used = min(length // 2 + 1 if is_half else length, given)
    if used < given:
        x = b.op("Slice", x, b.ints(0), b.ints(used), b.ints(axis))
    sign = 1 if is_inverse else -1
    angle = sign * 2 * np.pi * np.outer(np.arange(used), np.arange(kept)) / length
    scale = length if is_inverse else 1
    # The half of the spectrum that is not given is the conjugate of the given one. So all bins count twice, except the
    # first and, for an even length, the middle one.
    weights = np.where(is_half & (np.arange(used) % length != 0) & (2 * np.arange(used) != length), 2, 1)[:, None]
    cos = b.constant(np.cos(angle) * weights / scale, dtype)
    sin = b.constant(np.sin(angle) * weights / scale, dtype)
    rank = len(shape)
    # Move the transformed axis last and the axis of real and imaginary part first.
    others = [position for position in range(rank - 1) if position != axis]
    moved = b.op("Transpose", x, perm=[rank - 1, *others, axis])
    real = b.op("Gather", moved, b.constant(0, np.int64))
    if is_real:
        parts = [b.op("MatMul", real, cos), b.op("MatMul", real, sin)]
    else:
        imaginary = b.op("Gather", moved, b.constant(1, np.int64))
        parts = [
            b.op("Sub", b.op("MatMul", real, cos), b.op("MatMul", imaginary, sin)),
            b.op("Add", b.op("MatMul", real, sin), b.op("MatMul", imaginary, cos)),
        ][: 1 if is_half else 2]
    both = b.op("Concat", *(b.op("Unsqueeze", part, b.ints(rank - 1)) for part in parts), axis=rank - 1)
    order = [0] * rank
    for position, source in enumerate([*others, axis]):
        order[source] = position
    order[rank - 1] = rank - 1
    c.give(b.op("Transpose", both, perm=order))
    return True


def stft(c: Context) -> bool:
    """STFT: gather the frames, multiply them by the window and by the matrix of roots of unity.

    If the length of the signal is not known, a Conv computes the same: its kernels are the window times rows of that
    matrix.
    """
    b, x = c.build, c.input(0)
    shape = c.values.shape(x)
    step = c.values.constant(c.input(1))
    window_shape = c.values.static_shape(c.input(2)) if c.input(2) else None
    length_array = c.values.constant(c.input(3)) if c.input(3) else None
    if shape is None or step is None or (window_shape is None and length_array is None):
        return False
    if len(shape) == 3 and shape[2] != 1:
        return False
    length = int(length_array.reshape(-1)[0]) if length_array is not None else (window_shape or (0,))[0]
    dtype = helper.tensor_dtype_to_np_dtype(c.values.elem_type(x))
    stride = int(step.reshape(-1)[0])
    kept = length // 2 + 1 if c.attributes.get("onesided", 1) else length
    angle = -2 * np.pi * np.outer(np.arange(length), np.arange(kept)) / length
    if shape[1] is None:
        kernels = b.constant(np.concatenate([np.cos(angle), np.sin(angle)], 1).T[:, None], dtype)
        kernels = b.op("Mul", kernels, c.input(2)) if c.input(2) else kernels
        found = b.op("Conv", b.op("Reshape", x, b.ints(0, 1, -1)), kernels, strides=[stride])
        halves = b.op("Reshape", found, b.ints(0, 2, kept, -1))
        c.give(b.op("Transpose", halves, perm=[0, 3, 2, 1]))
        return True
    count = (shape[1] - length) // stride + 1
    flat = b.op("Reshape", x, b.ints(0, shape[1]))
    positions = np.arange(count)[:, None] * stride + np.arange(length)
    frames = b.op("Gather", flat, b.constant(positions, np.int64), axis=1)
    if c.input(2):
        frames = b.op("Mul", frames, c.input(2))
    parts = [b.op("MatMul", frames, b.constant(each, dtype)) for each in (np.cos(angle), np.sin(angle))]
    c.give(b.op("Concat", *(b.op("Unsqueeze", part, b.ints(3)) for part in parts), axis=3))
    return True


def det(c: Context) -> bool:
    """The determinant of matrices up to 4 by 4 by Leibniz's formula: sum over p of sgn(p) prod_i a[i, p(i)]."""
    shape, b = c.values.shape(c.input(0)), c.build
    if shape is None or shape[-1] is None or shape[-1] > MAX_DETERMINANT:
        return False
    count = shape[-1]
    rows = [b.op("Gather", c.input(0), b.constant(row, np.int64), axis=-2) for row in range(count)]
    elements = [[b.op("Gather", row, b.constant(col, np.int64), axis=-1) for col in range(count)] for row in rows]
    total = ""
    for order in itertools.permutations(range(count)):
        term = elements[0][order[0]]
        for row in range(1, count):
            term = b.op("Mul", term, elements[row][order[row]])
        inversions = sum(order[i] > order[j] for i in range(count) for j in range(i + 1, count))
        total = b.op("Sub" if inversions % 2 else "Add", total, term) if total else term
    c.give(total)
    return True


def reduce_log_sum_exp(c: Context) -> bool:
    """ReduceLogSumExp: max + log(sum(exp(x - max))). exp(x) alone, as ONNX defines it, overflows from 89 on, in fp16
    from 12.

    For integers each exponential is rounded towards 0, as in ONNX Runtime.
    """
    b, x, elem_type = c.build, c.input(0), c.values.elem_type(c.input(0))
    if not elem_type:
        return False
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    zero = b.constant(0, dtype)
    is_integer = dtype.kind in "iu"
    given = [c.input(1)] if c.input(1) else []
    noop, kept = c.attributes.get("noop_with_empty_axes", 0), c.attributes.get("keepdims", 1)
    largest = b.op("ReduceMax", x, *given, keepdims=1, noop_with_empty_axes=noop)
    # An infinite maximum is not subtracted, since inf - inf is NaN: log(exp(inf)) = inf and log(exp(-inf)) = -inf are
    # right.
    if not is_integer:
        largest = b.op("Where", b.op("IsInf", largest), zero, largest)
    less = b.op("Sub", x, largest)
    total = b.cast(b.op("Exp", b.cast(less, TensorProto.FLOAT)), elem_type) if is_integer else b.op("Exp", less)
    total = b.op("ReduceSum", total, *given, keepdims=kept, noop_with_empty_axes=noop)
    if not kept:
        largest = b.op("ReduceMax", largest, *given, keepdims=0, noop_with_empty_axes=noop)
    c.give(b.op("Add", _log(c, total), largest))
    return True


def reduce_log_sum(c: Context) -> bool:
    """ReduceLogSum: log(sum(x)); for integers rounded towards 0, as in ONNX Runtime."""
    b, elem_type = c.build, c.values.elem_type(c.input(0))
    if not elem_type:
        return False
    given = [c.input(1)] if c.input(1) else []
    noop, kept = c.attributes.get("noop_with_empty_axes", 0), c.attributes.get("keepdims", 1)
    c.give(_log(c, b.op("ReduceSum", c.input(0), *given, keepdims=kept, noop_with_empty_axes=noop)))
    return True


def _log(c: Context, x: str) -> str:
    """Build the logarithm. ONNX's Log does not take integers: for these it is computed in fp32 and rounded towards
    0.
    """
    b, elem_type = c.build, c.values.elem_type(c.input(0))
    if helper.tensor_dtype_to_np_dtype(elem_type).kind not in "iu":
        return b.op("Log", x)
    return b.cast(b.op("Log", b.cast(x, TensorProto.FLOAT)), elem_type)


TABLE: dict[str, Decomposition] = {
    "ReduceLogSum": reduce_log_sum,
    "ReduceLogSumExp": reduce_log_sum_exp,
    "Einsum": einsum,
    "DFT": dft,
    "STFT": stft,
    "Det": det,
}
