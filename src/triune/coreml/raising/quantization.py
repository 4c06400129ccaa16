"""quantize and dequantize, which are ONNX's QuantizeLinear and DequantizeLinear."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from triune.core.errors import InvalidArgumentError
from triune.coreml.mil import DType
from triune.coreml.raising.block import Raise
from triune.coreml.raising.elementwise_unary import dtype_called
from triune.coreml.raising.given import Given
from triune.graph.raising.graph import Graph, Tensor


def _parameters(graph: Graph, given: Given, quantized: DType) -> tuple[list[Tensor], dict[str, Any]]:
    """The scale and the zero point, scalars or vectors along `axis`, and the node's attributes.

    A zero point that is not given is 0.

    Raises:
        InvalidArgumentError: the shapes of scale and zero point differ, or do not fit the input.
    """
    scale = given["scale"]
    zero_point = given.maybe("zero_point")
    if zero_point is None:
        zero_point = graph.constant(np.zeros(given.array("scale").shape), quantized)
    if zero_point.shape != scale.shape or scale.rank > 1:
        raise InvalidArgumentError(f"'scale' is of shape {scale.shape}, 'zero_point' of {zero_point.shape}")
    attributes: dict[str, Any] = {}
    if scale.rank == 1:
        attributes["axis"] = axis = given.axis(of="input")
        if given["input"].size(axis) not in (None, scale.size(0)):
            raise InvalidArgumentError(f"{scale.size(0)} scales for a dimension of {given['input'].size(axis)}")
    return [scale, zero_point], attributes


def _quantize(graph: Graph, given: Given) -> Tensor:
    """Write clip(round(input / scale) + zero_point). Numbers halfway between two integers are rounded to the even
    one.
    """
    dtype = dtype_called(given.text("output_dtype"))
    (scale, zero_point), attributes = _parameters(graph, given, dtype)
    # Quantize from fp32: ONNX Runtime (1.32) fuses a Concat of values quantized from fp16 to QLinearConcat, which it
    # then refuses.
    x, scale = (graph.cast(each, DType.FP32) for each in (given["input"], scale))
    return graph.op("QuantizeLinear", x, scale, zero_point, dtype=dtype, **attributes)


def _dequantize(graph: Graph, given: Given) -> Tensor:
    """Write scale * (input - zero_point)."""
    x = given["input"]
    parameters, attributes = _parameters(graph, given, x.dtype)
    return graph.op("DequantizeLinear", x, *parameters, dtype=given["scale"].dtype, **attributes)


TABLE: Mapping[str, Raise] = MappingProxyType({"dequantize": _dequantize, "quantize": _quantize})
