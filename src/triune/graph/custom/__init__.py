"""Operators that a user defines: by a numpy function, by a function body of ONNX operators, or by both."""

from triune.graph.custom.collection import NO_CUSTOM_OPS, CustomOps, read_custom_ops
from triune.graph.custom.collection import Given as CustomOpsGiven
from triune.graph.custom.op import CustomOp, custom_op

__all__ = ["NO_CUSTOM_OPS", "CustomOp", "CustomOps", "CustomOpsGiven", "custom_op", "read_custom_ops"]
