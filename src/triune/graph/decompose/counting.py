"""Decompose Unique and TfIdfVectorizer."""

from itertools import pairwise

import numpy as np
from onnx import TensorProto, helper

from triune.graph.conversion.problems import Refusal
from triune.graph.decompose.context import Context, Decomposition


def unique(c: Context) -> bool:
    """Unique: each row (an element, or a slice along `axis`) is compared with each other row.

    Rows are ordered by the number of smaller rows, or, if not `sorted`, by the index of their first occurrence.

    NaN are equal to one another and larger than any number. n rows take n * n comparisons.
    """
    b, x = c.build, c.input(0)
    rank, elem_type = c.values.rank(x), c.values.elem_type(x)
    if rank is None or elem_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        return False
    axis = c.attributes.get("axis")
    if axis is None:
        x, axis = b.op("Reshape", x, b.ints(-1)), 0
        rows = b.op("Unsqueeze", x, b.ints(1))
    else:
        axis %= rank
        moved = b.op("Transpose", x, perm=[axis, *(position for position in range(rank) if position != axis)])
        rows = b.op("Flatten", moved)
    if elem_type == TensorProto.BOOL:
        rows = b.cast(rows, TensorProto.INT32)
    less, equal = _compared(c, rows, is_float=helper.tensor_dtype_to_np_dtype(elem_type).kind == "f")
    is_equal = b.op("ReduceMin", equal, b.ints(2), keepdims=0)
    first = b.op("ArgMax", is_equal, axis=1, keepdims=0)
    key = first
    if c.attributes.get("sorted", 1):
        # Lexicographic order: the first element in which two rows differ decides.
        differs = b.op("Sub", b.constant(1, np.float32), equal)
        position = b.op("ArgMax", differs, axis=2, keepdims=1)
        is_less = b.op("GatherElements", less, position, axis=2)
        key = b.cast(b.op("ReduceSum", is_less, b.ints(1, 2), keepdims=0), TensorProto.INT64)
    zeros = b.op("Sub", first, first)
    ones = b.op("Add", zeros, b.constant(1, np.int64))
    is_used_key = b.op("ScatterElements", zeros, key, ones)
    keys = b.op("Squeeze", b.op("NonZero", is_used_key), b.ints(0))

    def by_key(values: str) -> str:
        return b.op("Gather", b.op("ScatterElements", zeros, key, values), keys)

    indices = by_key(first)
    c.give(b.op("Gather", x, indices, axis=axis))
    c.give(indices, 1)
    if c.output(2):
        order = b.op("Sub", b.op("CumSum", is_used_key, b.constant(0, np.int64)), b.constant(1, np.int64))
        c.give(b.op("Gather", order, key), 2)
    if c.output(3):
        c.give(by_key(b.cast(b.op("ReduceSum", is_equal, b.ints(1), keepdims=0), TensorProto.INT64)), 3)
    return True


def _compared(c: Context, rows: str, *, is_float: bool) -> tuple[str, str]:
    """Compare the elements of rows (n, m). Returns two fp32 tensors (n, n, m): at [i, j], the first is 1 where an
    element of row j is less than that of row i, the second where they are equal.
    """
    b = c.build
    own, other = b.op("Unsqueeze", rows, b.ints(1)), b.op("Unsqueeze", rows, b.ints(0))
    less, equal = b.op("Less", other, own), b.op("Equal", other, own)
    if is_float:
        is_own, is_other = (b.op("Not", b.op("Equal", each, each)) for each in (own, other))
        less = b.op("Or", less, b.op("And", is_own, b.op("Not", is_other)))
        equal = b.op("Or", equal, b.op("And", is_own, is_other))
    return b.cast(less, TensorProto.FLOAT), b.cast(equal, TensorProto.FLOAT)


def tf_idf_vectorizer(c: Context) -> bool:
    """TfIdfVectorizer: each sequence of n tokens is compared with each n-gram of the pool, and matches are counted."""
    shape, b = c.values.shape(c.input(0)), c.build
    length = shape[len(shape) - 1] if shape else None
    if shape is None or length is None or "pool_int64s" not in c.attributes or len(shape) > 2:
        return False
    if c.values.elem_type(c.input(0)) == TensorProto.STRING:
        raise Refusal("it works on text, but Core ML and Core AI programs have only numbers; do this before the model")
    columns: list[int] = c.attributes["ngram_indexes"]
    tokens = b.op("Reshape", c.input(0), b.ints(-1, length))
    totals: list[str] = []
    starts = [*c.attributes["ngram_counts"], len(c.attributes["pool_int64s"])]
    num_before = 0
    for size, (start, end) in enumerate(pairwise(starts), start=1):
        grams = np.array(c.attributes["pool_int64s"][start:end], np.int64).reshape(-1, size)
        own = columns[num_before : num_before + len(grams)]
        num_before += len(grams)
        if not c.attributes["min_gram_length"] <= size <= c.attributes["max_gram_length"] or not own:
            continue
        positions = np.zeros((len(grams), max(columns) + 1))
        positions[np.arange(len(grams)), own] = 1
        # With a larger skip, no n-gram fits into the row.
        for skip in range(1 if size == 1 else min(c.attributes["max_skip_count"] + 1, length)):
            counts = _counts(c, tokens, length, grams, skip + 1)
            if counts is not None:
                totals.append(b.op("MatMul", counts, b.constant(positions, np.float32)))
    if not totals:
        return False
    total = totals[0]
    for each in totals[1:]:
        total = b.op("Add", total, each)
    mode, weights = c.attributes["mode"], c.attributes.get("weights")
    if mode == "IDF":
        total = b.cast(b.op("Greater", total, b.constant(0, np.float32)), TensorProto.FLOAT)
    if mode != "TF" and weights:
        total = b.op("Mul", total, b.constant(weights, np.float32))
    c.give(b.op("Reshape", total, b.ints(-1)) if len(shape) == 1 else total)
    return True


def _counts(
    c: Context, tokens: str, length: int, grams: np.ndarray[tuple[int, ...], np.dtype[np.int64]], step: int
) -> str | None:
    """Build (rows, grams), how often each n-gram occurs in each row with its tokens `step` apart; None if a row is too
    short for that.
    """
    b, size = c.build, grams.shape[1]
    num_positions = length - (size - 1) * step
    if num_positions < 1:
        return None
    positions = np.arange(num_positions)[:, None] + np.arange(size) * step
    runs = b.op("Unsqueeze", b.op("Gather", tokens, b.constant(positions, np.int64), axis=1), b.ints(2))
    pool = b.constant(grams, helper.tensor_dtype_to_np_dtype(c.values.elem_type(c.input(0))))
    is_same = b.cast(b.op("Equal", runs, pool), TensorProto.FLOAT)
    return b.op("ReduceSum", b.op("ReduceMin", is_same, b.ints(3), keepdims=0), b.ints(1), keepdims=0)


TABLE: dict[str, Decomposition] = {"Unique": unique, "TfIdfVectorizer": tf_idf_vectorizer}
