"""Random numbers; and classify, which chooses a class. With the seed -1 the numbers differ each time."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from triune.core.errors import UnsupportedError
from triune.coreml.mil import DType
from triune.coreml.raising.block import Raise
from triune.coreml.raising.given import Given
from triune.coreml.raising.tensor_operation import filled
from triune.graph.raising.graph import Graph, Tensor


def _seed(given: Given) -> dict[str, Any]:
    seed = given.integer("seed")
    return {} if seed == -1 else {"seed": float(seed)}


def _drawn(op_type: str, graph: Graph, given: Given, factor: float, offset: float) -> Tensor:
    """Write factor * r + offset for random r of ONNX's operator `op_type`, in fp32.

    The shape may be known only at run time. The operators' own scale and limits are not used: ONNX Runtime aborts the
    process for a deviation of 0 or a lower limit above the upper one.
    """
    drawn = graph.op(op_type, filled(graph, given["shape"], 0, DType.FP32), dtype=DType.FP32, **_seed(given))
    scaled = graph.op("Mul", drawn, graph.constant(factor, DType.FP32))
    return graph.cast(graph.op("Add", scaled, graph.constant(offset, DType.FP32)), given.dtype)


def _uniform(graph: Graph, given: Given) -> Tensor:
    low, high = given.number("low"), given.number("high")
    return _drawn("RandomUniformLike", graph, given, high - low, low)


def _normal(graph: Graph, given: Given) -> Tensor:
    return _drawn("RandomNormalLike", graph, given, given.number("stddev"), given.number("mean"))


def _bernoulli(graph: Graph, given: Given) -> Tensor:
    """Draw 1 with the probability `prob`, else 0."""
    like = filled(graph, given["shape"], 0, DType.FP32)
    drawn = graph.op("RandomUniformLike", like, dtype=DType.FP32, **_seed(given))
    is_one = graph.op("Less", drawn, graph.constant(given.number("prob"), DType.FP32), dtype=DType.BOOL)
    return graph.cast(is_one, given.dtype)


def _categorical(graph: Graph, given: Given) -> Tensor:
    """Draw `size` indices for each row along the last axis, whose elements are logits or probabilities."""
    x, mode = graph.cast(given["x"], DType.FP32), given.text("mode")
    if mode not in ("logits", "probs"):
        raise UnsupportedError(f"the mode '{mode}' is not known")
    logits = graph.op("Log", x) if mode == "probs" else x
    size = given.integer("size")
    outer = [graph.dim(x, axis) for axis in range(x.rank - 1)]
    rows = graph.op("Reshape", logits, graph.concat(graph.ints(-1), graph.dim(x, x.rank - 1)))
    drawn = graph.op("Multinomial", rows, dtype=DType.INT32, sample_size=size, **_seed(given))
    return graph.cast(graph.op("Reshape", drawn, graph.concat(*outer, graph.ints(size))), given.dtype)


def _classify(graph: Graph, given: Given) -> list[Tensor]:
    """Return the class of the largest probability, and all probabilities in the order of the classes."""
    classes = given["classes"]
    if classes.constant is None:
        raise UnsupportedError("the classes are not constants")
    flat = graph.reshape(graph.cast(given["probabilities"], DType.FP32), -1)
    best = graph.op("ArgMax", flat, dtype=DType.INT64, axis=0, keepdims=0)
    labels = Tensor(classes.name, classes.dtype, (len(classes.constant),), np.asarray(classes.constant))
    return [graph.op("Gather", labels, best, axis=0), flat]


TABLE: Mapping[str, Raise] = MappingProxyType(
    {
        "classify": _classify,
        "random_bernoulli": _bernoulli,
        "random_categorical": _categorical,
        "random_normal": _normal,
        "random_uniform": _uniform,
    }
)
