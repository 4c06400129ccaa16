"""Matrix products of com.microsoft of quantized matrices: integers are multiplied, then scaled, as in ONNX Runtime."""

import numpy as np
from onnx import TensorProto

from triune.graph.decompose.context import Context, Decomposition
from triune.graph.decompose.integers import dynamic_levels, minus_zero_point, weight_minus_zero_point
from triune.graph.decompose.microsoft.quantized import rounded


def scaled(c: Context, product: str, left_scale: str, right_scale: str, bias: str) -> str:
    """Build `product * left_scale * right_scale + bias` in fp32, for a product of integers as fp32.

    Each scale is one number or one for each column; scales and bias may be fp16. `bias` is "" for none.
    """
    b = c.build
    scale = b.op("Mul", *(b.cast(each, TensorProto.FLOAT) for each in (left_scale, right_scale)))
    result = b.op("Mul", product, scale)
    return b.op("Add", result, b.cast(bias, TensorProto.FLOAT)) if bias else result


def mat_mul_integer_to_float(c: Context) -> bool:
    """MatMulIntegerToFloat: (A - a) @ (B - b) * a_scale * b_scale + bias, in the type of the scales; a and b are zero
    points.
    """
    elem_type = c.values.elem_type(c.input(2))
    if not elem_type:
        return False
    left = minus_zero_point(c, c.input(0), c.input(4))
    product = c.build.op("MatMul", left, weight_minus_zero_point(c, c.input(1), c.input(5), -1))
    c.give(c.build.cast(scaled(c, product, c.input(2), c.input(3), c.input(6)), elem_type))
    return True


def dynamic_quantize_mat_mul(c: Context) -> bool:
    """DynamicQuantizeMatMul: MatMulIntegerToFloat with fp32 A, which is quantized to 8 bits by its own range."""
    b = c.build
    levels, scale, zero = dynamic_levels(b, c.input(0))
    product = b.op("MatMul", b.op("Sub", levels, zero), weight_minus_zero_point(c, c.input(1), c.input(3), -1))
    c.give(scaled(c, product, scale, c.input(2), c.input(4)))
    return True


def q_gemm(c: Context) -> bool:
    """QGemm: alpha * sa * sb * ((A - a) @ (B - b) + C), quantized if the result has a scale.

    a and b are the zero points of the matrices A and B; sa and sb are their scales.
    """
    b, flags = c.build, c.attributes
    columns = 0 if flags.get("transB", 0) else 1
    left = minus_zero_point(c, c.input(0), c.input(2))
    left = b.op("Transpose", left, perm=[1, 0]) if flags.get("transA", 0) else left
    right = weight_minus_zero_point(c, c.input(3), c.input(5), columns)
    right = b.op("Transpose", right, perm=[1, 0]) if flags.get("transB", 0) else right
    product = b.op("MatMul", left, right)
    if c.input(6):
        product = b.op("Add", product, b.cast(c.input(6), TensorProto.FLOAT))
    scale = b.op("Mul", b.op("Mul", c.input(1), c.input(4)), b.constant(flags.get("alpha", 1.0), np.float32))
    if not c.input(7):
        c.give(b.op("Mul", product, scale))
        return True
    elem_type = c.values.elem_type(c.input(8)) or c.values.elem_type(c.input(0))
    if not elem_type:
        return False
    steps = b.op("Mul", product, b.op("Div", scale, c.input(7)))
    zero = b.cast(c.input(8), TensorProto.FLOAT) if c.input(8) else b.constant(0, np.float32)
    c.give(rounded(c, b.op("Add", b.op("Round", steps), zero), elem_type))
    return True


TABLE: dict[str, Decomposition] = {
    "MatMulIntegerToFloat": mat_mul_integer_to_float,
    "DynamicQuantizeMatMul": dynamic_quantize_mat_mul,
    "QGemm": q_gemm,
}
