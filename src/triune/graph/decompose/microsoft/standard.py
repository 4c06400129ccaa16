"""Operators of com.microsoft that ONNX now has itself, under the same or another name."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from triune.graph.conversion.problems import Refusal
from triune.graph.decompose.context import Context, Decomposition


def same_as(op_type: str, defaults: Mapping[str, Any] | None = None) -> Decomposition:
    """A decomposition into ONNX's operator with the same inputs and attributes. `defaults` are the attributes' default
    values, where they differ from ONNX's.
    """

    def decompose(c: Context) -> bool:
        c.build.put(op_type, list(c.node.input), list(c.node.output), **{**(defaults or {}), **c.attributes})
        return True

    return decompose


def grid_sample(c: Context) -> bool:
    """GridSample: ONNX now calls the modes `bilinear` and `bicubic` `linear` and `cubic`."""
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(c.attributes.get("mode", "bilinear"), "nearest")
    c.build.put("GridSample", list(c.node.input), list(c.node.output), **{**c.attributes, "mode": mode})
    return True


def expand_dims(c: Context) -> bool:
    """ExpandDims: Unsqueeze of one axis."""
    axis = c.values.constant(c.input(1))
    if axis is None:
        raise Refusal("its axis is computed while the model runs; write it as a constant")
    c.give(c.build.op("Unsqueeze", c.input(0), c.build.ints(int(axis.reshape(-1)[0]))))
    return True


def range_(c: Context) -> bool:
    """Range, with a step of 1 if none is given; the operands are scalars or vectors of one element."""
    if not (elem_type := c.values.elem_type(c.input(0))):
        return False
    b = c.build
    ends = [b.op("Reshape", name, b.constant([], np.int64)) for name in (c.input(0), c.input(1))]
    step = b.op("Reshape", c.input(2), b.constant([], np.int64)) if c.input(2) else b.typed(1, elem_type)
    c.give(b.op("Range", *ends, step))
    return True


TABLE: dict[str, Decomposition] = {
    "Range": range_,
    "Trilu": same_as("Trilu"),
    "QuantizeLinear": same_as("QuantizeLinear"),
    "DequantizeLinear": same_as("DequantizeLinear"),
    "GatherND": same_as("GatherND"),
    "Pad": same_as("Pad"),
    "GridSample": grid_sample,
    "ExpandDims": expand_dims,
}
