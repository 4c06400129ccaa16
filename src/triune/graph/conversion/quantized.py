"""The element type of a QuantizeLinear's output."""

from typing import Any

from onnx import TensorProto

from triune.graph.conversion.context import NodeContext


def quantized_type(c: NodeContext[Any]) -> int:
    """The element type (`TensorProto.DataType`) of a QuantizeLinear's output: the type of its zero point, else the type
    in the graph, else the attribute `output_dtype`, else UINT8 (ONNX's default).
    """
    values = c.scope.values
    stated = values.elem_type(c.node.output[0]) or int(c.attributes.get("output_dtype", 0))
    zero_point = values.elem_type(c.node.input[2]) if c.has(2) else None
    return zero_point or stated or TensorProto.UINT8
