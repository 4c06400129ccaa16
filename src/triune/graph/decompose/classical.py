"""Operators of the domain ai.onnx.ml, which scikit-learn's converters write."""

import numpy as np
from onnx import helper

from triune.graph.decompose.context import Context, Decomposition


def array_feature_extractor(c: Context) -> bool:
    """Columns gathered; of a vector the result is a row."""
    b, rank = c.build, c.values.rank(c.input(0))
    if rank is None:
        return False
    columns = b.op("Reshape", c.input(1), b.ints(-1))
    found = b.op("Gather", c.input(0), columns, axis=-1)
    c.give(b.op("Unsqueeze", found, b.ints(0)) if rank == 1 else found)
    return True


def binarizer(c: Context) -> bool:
    """1 where it is above the threshold, else 0."""
    b, elem_type = c.build, c.values.elem_type(c.input(0))
    if not elem_type:
        return False
    limit = b.constant(c.attributes.get("threshold", 0.0), np.dtype(helper.tensor_dtype_to_np_dtype(elem_type)))
    c.give(b.cast(b.op("Greater", c.input(0), limit), elem_type))
    return True


TABLE: dict[str, Decomposition] = {"ArrayFeatureExtractor": array_feature_extractor, "Binarizer": binarizer}
