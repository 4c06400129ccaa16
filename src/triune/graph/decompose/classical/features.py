"""Operators of ai.onnx.ml that prepare features: select, scale, impute and concatenate them."""

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto, helper

from triune.graph.conversion.problems import Refusal
from triune.graph.decompose.context import Context, Decomposition


def as_floats(c: Context, index: int = 0) -> str | None:
    """Build a Cast of an input to fp32, in which operators of ai.onnx.ml compute; None if its type is not known."""
    elem_type = c.values.elem_type(c.input(index))
    if elem_type == TensorProto.FLOAT:
        return c.input(index)
    return c.build.cast(c.input(index), TensorProto.FLOAT) if elem_type else None


def rows_of(c: Context) -> tuple[str, int] | None:
    """Build the first input as fp32 (rows, columns), a vector as one row.

    Returns the name of the result and the rank of the input; None if the rank or the type is not known.
    """
    rank, x = c.values.rank(c.input(0)), as_floats(c)
    if rank is None or x is None:
        return None
    return (c.build.op("Unsqueeze", x, c.build.ints(0)) if rank == 1 else x), rank


def array_feature_extractor(c: Context) -> bool:
    """ArrayFeatureExtractor: Gather along the last axis; for a vector the result is (1, number of indices)."""
    b, rank = c.build, c.values.rank(c.input(0))
    if rank is None:
        return False
    columns = b.op("Reshape", c.input(1), b.ints(-1))
    found = b.op("Gather", c.input(0), columns, axis=-1)
    c.give(b.op("Unsqueeze", found, b.ints(0)) if rank == 1 else found)
    return True


def binarizer(c: Context) -> bool:
    """Binarizer: 1 where x > threshold, else 0."""
    b, elem_type = c.build, c.values.elem_type(c.input(0))
    if not elem_type:
        return False
    limit = b.constant(c.attributes.get("threshold", 0.0), np.dtype(helper.tensor_dtype_to_np_dtype(elem_type)))
    c.give(b.cast(b.op("Greater", c.input(0), limit), elem_type))
    return True


def scaler(c: Context) -> bool:
    """Scaler: (x - offset) * scale; offset and scale are one number, or one for each column."""
    b, x = c.build, as_floats(c)
    if x is None:
        return False
    offset, scale = (
        np.array(c.attributes.get(name, [each]), np.float32) for name, each in (("offset", 0), ("scale", 1))
    )
    c.give(b.op("Mul", b.op("Sub", x, b.constant(offset)), b.constant(scale)))
    return True


def normalizer(c: Context) -> bool:
    """Normalizer: each row is divided by its norm: max(x) for MAX, sum(|x|) for L1, sqrt(sum(x^2)) for L2. A row of
    norm 0 stays.
    """
    b, x, rank = c.build, as_floats(c), c.values.rank(c.input(0))
    if x is None or rank is None:
        return False
    # ONNX Runtime normalizes along axis 1, and along axis 0 of a vector.
    axes = b.ints(min(rank - 1, 1))
    match c.attributes.get("norm", "MAX"):
        case "MAX":
            size = b.op("ReduceMax", x, axes, keepdims=1)
        case "L1":
            size = b.op("ReduceSum", b.op("Abs", x), axes, keepdims=1)
        case "L2":
            size = b.op("Sqrt", b.op("ReduceSum", b.op("Mul", x, x), axes, keepdims=1))
        case other:
            raise Refusal(f"there is no norm '{other}'; it is MAX, L1 or L2")
    zero, one = (b.constant(each, np.float32) for each in (0, 1))
    c.give(b.op("Div", x, b.op("Where", b.op("Equal", size, zero), one, size)))
    return True


def imputer(c: Context) -> bool:
    """Imputer: replace missing elements (x == replaced_value, or NaN if that is NaN) by the imputed value of their
    column.
    """
    b, x, elem_type = c.build, c.input(0), c.values.elem_type(c.input(0))
    if not elem_type:
        return False
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    kind = "int64" if elem_type == TensorProto.INT64 else "float"
    given = c.attributes.get(f"imputed_value_{kind}s")
    if not given:
        raise Refusal(f"it has no imputed_value_{kind}s for its input of {dtype}")
    missing = c.attributes.get(f"replaced_value_{kind}", 0)
    is_missing = b.op("IsNaN", x) if missing != missing else b.op("Equal", x, b.constant(missing, dtype))
    c.give(b.op("Where", is_missing, b.constant(given, dtype), x))
    return True


def feature_vectorizer(c: Context) -> bool:
    """FeatureVectorizer: concatenate the inputs along the last axis as fp32, each cut, or padded with 0, to its
    declared width.
    """
    b, widths = c.build, c.attributes["inputdimensions"]
    parts: list[str] = []
    for index, width in enumerate(widths):
        shape, x = c.values.shape(c.input(index)), as_floats(c, index)
        if shape is None or x is None or shape[-1] is None:
            return False
        part = b.op("Unsqueeze", x, b.ints(0)) if len(shape) == 1 else x
        parts.append(_of_width(c, part, shape[-1], width))
    c.give(b.op("Concat", *parts, axis=1))
    return True


def _of_width(c: Context, x: str, width: int, wanted: int) -> str:
    b = c.build
    if wanted > width:
        return b.op("Pad", x, b.ints(0, 0, 0, wanted - width))
    return b.op("Slice", x, b.ints(0), b.ints(wanted), b.ints(1)) if wanted < width else x


def _refused(reason: str) -> Decomposition:
    def refuse(_: Context) -> bool:
        raise Refusal(reason)

    return refuse


def table_of(names: Sequence[str], reason: str) -> dict[str, Decomposition]:
    """Decompositions that refuse these operators for `reason`."""
    return {name: _refused(reason) for name in names}


TABLE: dict[str, Decomposition] = {
    "ArrayFeatureExtractor": array_feature_extractor,
    "Binarizer": binarizer,
    "Scaler": scaler,
    "Normalizer": normalizer,
    "Imputer": imputer,
    "FeatureVectorizer": feature_vectorizer,
    **table_of(
        ["CastMap", "DictVectorizer"],
        "it takes a dictionary, which compiled programs do not support; give the model a tensor",
    ),
}
