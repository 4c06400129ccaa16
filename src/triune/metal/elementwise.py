"""ONNX's operators that compute element by element, in MLX, and Cast."""

import math
from collections.abc import Callable, Mapping

from onnx import TensorProto, helper

from triune.graph.conversion.problems import Refusal
from triune.metal.context import Context, Lowering, builder_of
from triune.metal.library import Value, fused, mx


def _number(number: float, x: Value) -> Value:
    return mx.array(number, dtype=x.dtype)


def _is_whole(x: Value) -> bool:
    return mx.issubdtype(x.dtype, mx.integer)


def _divide(x: Value, y: Value) -> Value:
    if not _is_whole(x):
        return mx.divide(x, y)
    # ONNX's Div of integers rounds towards 0. Replace the divisors 0 and -1 by 1, and negate for -1: on a CPU, dividing
    # by 0, or the lowest number by -1, would end the process.
    is_negation = y == -1 if mx.issubdtype(y.dtype, mx.signedinteger) else mx.array(False)
    divisor = mx.where((y == 0) | is_negation, _number(1, y), y)
    low = mx.floor_divide(x, divisor)
    is_off = (low < 0) & (low * divisor != x)
    return mx.where(is_negation, 0 - x, mx.where(is_off, low + _number(1, low), low))


def _mod(x: Value, y: Value, fmod: int) -> Value:
    if _is_whole(x):
        # Avoid the divisions that end the process (see `_divide`). Any number modulo -1 is 0.
        is_one = y == -1 if mx.issubdtype(y.dtype, mx.signedinteger) else mx.array(False)
        y = mx.where((y == 0) | is_one, _number(1, y), y)
        if not fmod:
            return mx.remainder(x, y)
        return x - _divide(x, y) * y
    if not fmod:
        return mx.remainder(x, y)
    rest = mx.remainder(mx.abs(x), mx.abs(y))
    return mx.where(x < 0, -rest, rest)


def _power(x: Value, y: Value) -> Value:
    if not _is_whole(x):
        return mx.power(x, y)
    # x^-n is 1 / x^n, rounded towards 0. MLX's power of integers does not support negative exponents.
    inverse = mx.where(x == 1, _number(1, x), mx.where(x == -1, 1 - 2 * (y % 2), _number(0, x)))
    return mx.where(y < 0, inverse, mx.power(x, mx.maximum(y, _number(0, y))))


def _rounded(function: Callable[[Value], Value]) -> Callable[[Value], Value]:
    def rounded(x: Value) -> Value:
        return x if _is_whole(x) else function(x)

    return rounded


def _reciprocal(x: Value) -> Value:
    return _number(1, x) / x


def _relu(x: Value) -> Value:
    return mx.maximum(x, _number(0, x))


def _leaky_relu(x: Value, alpha: float) -> Value:
    return mx.where(x < 0, _number(alpha, x) * x, x)


def _softplus(x: Value) -> Value:
    return mx.logaddexp(x, _number(0, x))


def _softsign(x: Value) -> Value:
    return x / (_number(1, x) + mx.abs(x))


def _elu(x: Value, alpha: float) -> Value:
    return mx.where(x < 0, _number(alpha, x) * mx.expm1(x), x)


def _hard_sigmoid(x: Value, alpha: float, beta: float) -> Value:
    return mx.clip(_number(alpha, x) * x + _number(beta, x), _number(0, x), _number(1, x))


@fused
def exact_gelu(x: Value) -> Value:
    """GELU, computed in fp32."""
    wide = x.astype(mx.float32)
    return (wide * 0.5 * (1 + mx.erf(wide * math.sqrt(0.5)))).astype(x.dtype)


@fused
def tanh_gelu(x: Value) -> Value:
    """GELU by its approximation with tanh, computed in fp32."""
    wide = x.astype(mx.float32)
    inner = math.sqrt(2 / math.pi) * (wide + 0.044715 * wide * wide * wide)
    return (wide * 0.5 * (1 + mx.tanh(inner))).astype(x.dtype)


def _gelu(x: Value, approximate: str) -> Value:
    return exact_gelu(x) if approximate == "none" else tanh_gelu(x)


@fused
def swiglu(gate: Value, x: Value) -> Value:
    """SwiGLU: gate * sigmoid(gate) * x."""
    return gate * mx.sigmoid(gate) * x


OPS: Mapping[str, Callable[..., Value]] = {
    "Abs": mx.abs,
    "Acos": mx.arccos,
    "Asin": mx.arcsin,
    "Atan": mx.arctan,
    "Atanh": mx.arctanh,
    "Ceil": _rounded(mx.ceil),
    "Cos": mx.cos,
    "Cosh": mx.cosh,
    "Erf": mx.erf,
    "Exp": mx.exp,
    "Floor": _rounded(mx.floor),
    "Log": mx.log,
    "Neg": mx.negative,
    "Not": mx.logical_not,
    "Reciprocal": _reciprocal,
    "Round": _rounded(mx.round),
    "Sigmoid": mx.sigmoid,
    "Sign": mx.sign,
    "Sin": mx.sin,
    "Sinh": mx.sinh,
    "Sqrt": mx.sqrt,
    "Tan": mx.tan,
    "Tanh": mx.tanh,
    "Relu": _relu,
    "LeakyRelu": _leaky_relu,
    "Elu": _elu,
    "Softplus": _softplus,
    "Softsign": _softsign,
    "HardSigmoid": _hard_sigmoid,
    "Gelu": _gelu,
    "Add": mx.add,
    "Sub": mx.subtract,
    "Mul": mx.multiply,
    "Div": _divide,
    "Mod": _mod,
    "Pow": _power,
    "Max": mx.maximum,
    "Min": mx.minimum,
    "And": mx.logical_and,
    "Or": mx.logical_or,
    "Xor": mx.not_equal,
    "Equal": mx.equal,
    "Greater": mx.greater,
    "GreaterOrEqual": mx.greater_equal,
    "Less": mx.less,
    "LessOrEqual": mx.less_equal,
    "Where": mx.where,
}
"""The function that computes each elementwise operator of ONNX. Its operands broadcast."""


def _cast(c: Context) -> None:
    elem_type = int(c.attributes["to"])
    try:
        kind = builder_of(c).kind_of(elem_type)
    except KeyError:
        raise Refusal(f"a cast to {helper.tensor_dtype_to_string(elem_type)}, which MLX does not have") from None
    x = c.input(0)
    c.give(builder_of(c).cast_to(x, kind))


def _bit_cast(c: Context) -> None:
    x, kind = c.input(0), builder_of(c).kind_of(int(c.attributes["to"]))
    if kind.size != x.dtype.size or TensorProto.DOUBLE in (
        int(c.attributes["to"]),
        c.scope.values.elem_type(c.node.input[0]),
    ):
        raise Refusal("it reads the bits of a number as those of another size, or of fp64, which MLX does not have")
    c.give(x.view(kind))


TABLE: Mapping[str, Lowering] = {"Cast": _cast, "BitCast": _bit_cast}
