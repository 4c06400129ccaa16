"""Operators of ai.onnx.ml that map labels and categories to numbers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from triune.graph.conversion.problems import Refusal
from triune.graph.decompose.classical.features import table_of
from triune.graph.decompose.context import Context, Decomposition

TEXT = "it works on text, but Core ML and Core AI programs have only numbers; do this before or after the model"

_KINDS = {"int64s": np.int64, "floats": np.float32}
_DEFAULTS = {np.dtype(np.int64): ("default_int64", -1), np.dtype(np.float32): ("default_float", -0.0)}


def _list(c: Context, name: str) -> NDArray[Any]:
    """The numbers of the first attribute that exists among {name}_tensor, {name}_int64s and {name}_floats."""
    tensor: TensorProto | None = c.attributes.get(f"{name}_tensor")
    if tensor is not None and tensor.data_type != TensorProto.STRING:
        return numpy_helper.to_array(tensor)
    for ending, dtype in _KINDS.items():
        if f"{name}_{ending}" in c.attributes:
            return np.array(c.attributes[f"{name}_{ending}"], dtype)
    raise Refusal(TEXT)


def label_encoder(c: Context) -> bool:
    """LabelEncoder: the value of each key, or the default value for an element that is not a key. NaN may be a key."""
    b, keys, values = c.build, _list(c, "keys"), _list(c, "values")
    given: TensorProto | None = c.attributes.get("default_tensor")
    if given is not None:
        default = numpy_helper.to_array(given).reshape(())
    elif values.dtype in _DEFAULTS:
        name, usual = _DEFAULTS[values.dtype]
        default = np.array(c.attributes.get(name, usual), values.dtype)
    else:
        default = np.zeros((), values.dtype)
    x = b.op("Unsqueeze", c.input(0), b.ints(-1))
    is_key = b.op("Equal", x, b.constant(keys))
    if keys.dtype.kind == "f" and np.isnan(keys).any():
        both = b.op("And", b.op("IsNaN", x), b.constant(np.isnan(keys)))
        is_key = b.op("Or", is_key, both)
    hits = b.cast(is_key, TensorProto.INT32)
    found = b.op("Gather", b.constant(values), b.op("ArgMax", hits, axis=-1, keepdims=0))
    is_known = b.op("Greater", b.op("ReduceMax", hits, b.ints(-1), keepdims=0), b.constant(0, np.int32))
    c.give(b.op("Where", is_known, found, b.constant(default)))
    return True


def one_hot_encoder(c: Context) -> bool:
    """OneHotEncoder: one-hot vectors over the categories, along a new last axis."""
    categories = c.attributes.get("cats_int64s")
    if not categories:
        raise Refusal(TEXT)
    b = c.build
    x = b.op("Unsqueeze", b.cast(c.input(0), TensorProto.INT64), b.ints(-1))
    c.give(b.cast(b.op("Equal", x, b.constant(categories, np.int64)), TensorProto.FLOAT))
    return True


TABLE: dict[str, Decomposition] = {
    "LabelEncoder": label_encoder,
    "OneHotEncoder": one_hot_encoder,
    **table_of(["CategoryMapper"], TEXT),
}
