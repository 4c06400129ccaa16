"""Reductions over axes, argmax and argmin."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from triune.coreml.mil import DType
from triune.coreml.raising.block import Raise
from triune.coreml.raising.elementwise_binary import FLOATS
from triune.coreml.raising.given import Given
from triune.graph.axes import existing_axis
from triune.graph.raising.graph import Graph, Tensor

# For integers, these operators compute in fp32 and round towards zero, as in MIL.
_FLOATING = frozenset({"ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean"})


def _reduce(op_type: str, graph: Graph, given: Given) -> Tensor:
    """Write a reduction over `axes`; over all axes if they are not given."""
    x = given["x"]
    axes = given.maybe_ints("axes")
    if axes is None:
        axes = list(range(x.rank))
    if x.dtype not in FLOATS and op_type in _FLOATING:
        x = graph.cast(x, DType.FP32)
    axes = sorted({existing_axis(axis, x.rank, "axes") for axis in axes})
    # A scalar has no axes. ONNX then reduces over all axes, which gives the scalar itself.
    return graph.op(op_type, x, graph.ints(*axes), keepdims=int(given.flag("keep_dims")), noop_with_empty_axes=0)


def _argument(op_type: str, graph: Graph, given: Given) -> Tensor:
    return graph.op(op_type, given["x"], dtype=DType.INT64, axis=given.axis(), keepdims=int(given.flag("keep_dims")))


TABLE: Mapping[str, Raise] = MappingProxyType(
    {
        "reduce_argmax": partial(_argument, "ArgMax"),
        "reduce_argmin": partial(_argument, "ArgMin"),
        "reduce_l1_norm": partial(_reduce, "ReduceL1"),
        "reduce_l2_norm": partial(_reduce, "ReduceL2"),
        "reduce_log_sum": partial(_reduce, "ReduceLogSum"),
        "reduce_log_sum_exp": partial(_reduce, "ReduceLogSumExp"),
        "reduce_max": partial(_reduce, "ReduceMax"),
        "reduce_mean": partial(_reduce, "ReduceMean"),
        "reduce_min": partial(_reduce, "ReduceMin"),
        "reduce_prod": partial(_reduce, "ReduceProd"),
        "reduce_sum": partial(_reduce, "ReduceSum"),
        "reduce_sum_square": partial(_reduce, "ReduceSumSquare"),
    }
)
