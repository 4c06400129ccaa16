"""The same graphs as an exporter writes them that itself converts the model to fp16."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx.shape_inference
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, numpy_helper

from support.half_cases.case import HalfCase
from triune.graph.passes.halve import halved
from triune.graph.passes.widen import Widen

_FLOAT, _HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def of_fp16(cases: Sequence[HalfCase]) -> tuple[list[HalfCase], list[HalfCase]]:
    """Make sources in fp16, and the right answers, computed from the same numbers in fp32: see `misses`."""
    sources = [_source(case) for case in cases]
    return sources, [_widened(case) for case in sources]


def _source(case: HalfCase) -> HalfCase:
    model = ModelProto()
    model.CopyFrom(case.model)
    graph = model.graph
    del graph.value_info[:]
    for tensor in graph.initializer:
        _halve(tensor)
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == _FLOAT:
            value.type.tensor_type.elem_type = _HALF
    for node in graph.node:
        _halve_node(node)
    feeds = {name: halved(array) if array.dtype == np.float32 else array for name, array in case.feeds.items()}
    return HalfCase(case.name, onnx.shape_inference.infer_shapes(model), feeds, case.bound)


def _halve_node(node: NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.TENSOR:
            _halve(attribute.t)
        elif attribute.name == "to" and attribute.i == _FLOAT:
            attribute.i = _HALF


def _halve(tensor: TensorProto) -> None:
    if tensor.data_type == _FLOAT:
        tensor.CopyFrom(numpy_helper.from_array(halved(numpy_helper.to_array(tensor)), tensor.name))


def _widened(case: HalfCase) -> HalfCase:
    model = ModelProto()
    model.CopyFrom(case.model)
    feeds: dict[str, Any] = {
        name: array.astype(np.float32) if array.dtype == np.float16 else array for name, array in case.feeds.items()
    }
    return HalfCase(case.name, Widen()(model), feeds, case.bound)
