"""Elementwise functions of one or several tensors."""

import numpy as np
from onnx import TensorProto, helper

from triune.graph.decompose.context import Context, Decomposition

_FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16}


def _dtype(c: Context, index: int = 0) -> np.dtype[np.generic]:
    return helper.tensor_dtype_to_np_dtype(c.values.elem_type(c.input(index)))


def _log_of_double(c: Context, size: str, logarithm: str) -> str:
    """Build log(size) + log(2) where `size` is so large that its square or double may overflow; else `logarithm`.

    For large sizes, log(size + sqrt(size^2 + 1)) is log(2 * size), with an error of about 1 / (4 * size^2).
    """
    b, dtype = c.build, _dtype(c)
    is_large = b.op("Greater", size, b.constant(2**7 if dtype == np.float16 else 2**13, dtype))
    large = b.op("Add", b.op("Log", size), b.constant(np.log(2), dtype))
    return b.op("Where", is_large, large, logarithm)


def acosh(c: Context) -> bool:
    """Acosh: log(x + sqrt(x - 1) * sqrt(x + 1)). Unlike x^2 - 1, neither of the two factors overflows."""
    b, x = c.build, c.input(0)
    one = b.constant(1, _dtype(c))
    root = b.op("Mul", b.op("Sqrt", b.op("Sub", x, one)), b.op("Sqrt", b.op("Add", x, one)))
    c.give(_log_of_double(c, x, b.op("Log", b.op("Add", x, root))))
    return True


def asinh(c: Context) -> bool:
    """Asinh: sign(x) * log(|x| + sqrt(x^2 + 1)).

    For |x| < 1/16, where |x| + 1 would lose bits of x, it is x * (1 - x^2 * (1/6 - 3/40 * x^2)), with an error of about
    x^7 / 22.
    """
    b, x, dtype = c.build, c.input(0), _dtype(c)
    size, square = b.op("Abs", x), b.op("Mul", x, x)
    root = b.op("Sqrt", b.op("Add", square, b.constant(1, dtype)))
    logarithm = b.op("Mul", b.op("Sign", x), _log_of_double(c, size, b.op("Log", b.op("Add", size, root))))
    rest = b.op("Sub", b.constant(1 / 6, dtype), b.op("Mul", square, b.constant(3 / 40, dtype)))
    series = b.op("Mul", x, b.op("Sub", b.constant(1, dtype), b.op("Mul", square, rest)))
    c.give(b.op("Where", b.op("Less", size, b.constant(2**-4, dtype)), series, logarithm))
    return True


def celu(c: Context) -> bool:
    """Celu: max(0, x) + min(0, alpha * (exp(x / alpha) - 1)).

    For positive alpha this is alpha * elu(x / alpha), which ONNX's function body computes for every alpha. ONNX's
    specification and reference evaluator and ONNX Runtime compute the formula above.
    """
    b, x = c.build, c.input(0)
    alpha = c.attributes.get("alpha", 1.0)
    factor = b.constant(alpha, _dtype(c))
    zero = b.constant(0, _dtype(c))
    if alpha >= 1:
        c.give(b.op("Mul", factor, b.op("Elu", b.op("Div", x, factor))))
        return True
    if alpha > 0:
        # Compute elu only of min(0, x) / alpha: for positive x, x / alpha may be beyond fp16 although x is not.
        below = b.op("Elu", b.op("Div", b.op("Min", x, zero), factor))
        c.give(b.op("Add", b.op("Relu", x), b.op("Mul", factor, below)))
        return True
    power = b.op("Mul", factor, b.op("Sub", b.op("Exp", b.op("Div", x, factor)), b.constant(1, _dtype(c))))
    c.give(b.op("Add", b.op("Relu", x), b.op("Min", zero, power)))
    return True


def is_nan(c: Context) -> bool:
    """IsNaN: only NaN differs from itself, `x != x`."""
    c.give(c.build.op("Not", c.build.op("Equal", c.input(0), c.input(0))))
    return True


def is_inf(c: Context) -> bool:
    """IsInf: `x == inf` if detect_positive is set, or `x == -inf` if detect_negative is."""
    b, x, dtype = c.build, c.input(0), _dtype(c)
    found = [
        b.op("Equal", x, b.constant(value, dtype))
        for name, value in (("detect_positive", np.inf), ("detect_negative", -np.inf))
        if c.attributes.get(name, 1)
    ]
    match found:
        case [first, second]:
            c.give(b.op("Or", first, second))
        case [only]:
            c.give(only)
        case _:
            c.give(b.op("And", b.op("Equal", x, x), b.constant(False)))
    return True


def cast_like(c: Context) -> bool:
    """CastLike: a Cast to the type of the second input, once that type is known."""
    elem_type = c.values.elem_type(c.input(1))
    if not elem_type:
        return False
    c.give(c.build.op("Cast", c.input(0), to=elem_type, **c.attributes))
    return True


def chain(op_type: str) -> Decomposition:
    """An operator of several inputs as operators of two: op(a, b, c) is op(op(a, b), c)."""

    def decompose(c: Context) -> bool:
        if len(c.node.input) == 2 and op_type in ("Max", "Min"):
            return False
        c.give(_chain(c, op_type))
        return True

    return decompose


def mean(c: Context) -> bool:
    """Mean: the sum of the inputs divided by their number."""
    c.give(c.build.op("Div", _chain(c, "Add"), c.build.constant(len(c.node.input), _dtype(c))))
    return True


def _chain(c: Context, op_type: str) -> str:
    total = c.input(0)
    for name in c.node.input[1:]:
        total = c.build.op(op_type, total, name)
    return total


def dropout(c: Context) -> bool:
    """Dropout: Identity, unless it is in training mode."""
    if c.input(2):
        mode = c.values.constant(c.input(2))
        if mode is None or mode.reshape(-1)[0]:
            return _training_dropout(c)
    c.give(c.input(0))
    if c.output(1):
        c.give(c.build.op("Expand", c.build.constant(True), c.build.op("Shape", c.input(0))), 1)
    return True


def _training_dropout(c: Context) -> bool:
    """Drop each element with probability p and multiply the others by 1 / (1 - p). The shape must be known."""
    b, x, shape = c.build, c.input(0), c.values.static_shape(c.input(0))
    if shape is None:
        return False
    ratio = b.cast(c.input(1), TensorProto.FLOAT) if c.input(1) else b.constant(0.5, np.float32)
    ratio = b.op("Where", c.input(2), ratio, b.constant(0, np.float32))
    seed = {"seed": float(c.attributes["seed"])} if "seed" in c.attributes else {}
    is_kept = b.op("GreaterOrEqual", b.op("RandomUniform", shape=shape, dtype=TensorProto.FLOAT, **seed), ratio)
    factor = b.op("Reciprocal", b.op("Sub", b.constant(1, np.float32), ratio))
    larger = b.op("Mul", x, b.cast(factor, c.values.elem_type(x)))
    c.give(b.op("Where", is_kept, larger, b.constant(0, _dtype(c))))
    c.give(is_kept, 1)
    return True


def bit_cast(c: Context) -> bool:
    """BitCast between integers of equal width: a Cast, which wraps around and so keeps the bits."""
    dtype, target = _dtype(c), helper.tensor_dtype_to_np_dtype(c.attributes["to"])
    if dtype.kind not in "iub" or target.kind not in "iu" or dtype.itemsize != target.itemsize:
        return False
    c.give(c.build.cast(c.input(0), c.attributes["to"]))
    return True


def bit_shift(c: Context) -> bool:
    """BitShift: `x * 2^n` or `x / 2^n`; a shift by the type's width or more gives 0, or -1 for a negative x shifted
    right.

    A negative shift, read as an unsigned number, exceeds the width, as in ONNX's node tests. UINT32 is cast to INT32
    and back, since Apple's runtimes have no UINT32. There a number whose highest bit is set is negative, so a shift
    right is not a division: `_logical_shift` fills with zeros.
    """
    b, dtype, elem_type = c.build, _dtype(c), c.values.elem_type(c.input(0))
    width = dtype.itemsize * 8
    exponent = b.cast(c.input(1), TensorProto.FLOAT)
    if dtype.kind == "i":
        is_negative = b.op("Less", exponent, b.constant(0, np.float32))
        exponent = b.op("Where", is_negative, b.constant(width, np.float32), exponent)
    is_right = c.attributes.get("direction") != "LEFT"
    if elem_type == TensorProto.UINT32:
        bits = b.cast(c.input(0), TensorProto.INT32)
        signed = np.dtype(np.int32)
        shifted = _logical_shift(c, bits, exponent) if is_right else _shift_left(c, bits, exponent, signed)
        c.give(b.cast(shifted, elem_type))
    elif not is_right:
        c.give(_shift_left(c, c.input(0), exponent, dtype))
    elif dtype.kind == "i":
        c.give(_shift_right(c, c.input(0), exponent, dtype))
    else:
        is_all, factor = _power(c, exponent, width, dtype)
        c.give(b.op("Where", is_all, b.constant(0, dtype), b.op("Div", c.input(0), factor)))
    return True


def _power(c: Context, exponent: str, limit: int, dtype: np.dtype[np.generic]) -> tuple[str, str]:
    """Build two values: whether the shift `exponent` is at least `limit`, and 2^shift in `dtype` where it is less (else
    1).
    """
    b = c.build
    is_all = b.op("GreaterOrEqual", exponent, b.constant(limit, np.float32))
    power = b.op("Pow", b.constant(2, np.float32), b.op("Where", is_all, b.constant(0, np.float32), exponent))
    return is_all, b.cast(power, helper.np_dtype_to_tensor_dtype(dtype))


def _shift_left(c: Context, x: str, exponent: str, dtype: np.dtype[np.generic]) -> str:
    """`x * 2^n`, 0 for a shift by the type's width or more."""
    b, width, is_signed = c.build, dtype.itemsize * 8, dtype.kind == "i"
    is_all, factor = _power(c, exponent, width - is_signed, dtype)
    shifted, zero = b.op("Mul", x, factor), b.constant(0, dtype)
    if is_signed:
        # For a signed type, do not multiply by 2^(width - 1), which exceeds the type. A shift by width - 1 moves the
        # lowest bit to the sign: the result is the type's lowest number if x is odd, else 0.
        lowest = b.constant(np.iinfo(dtype.name).min, dtype)
        is_odd = b.op("Not", b.op("Equal", b.op("Mod", x, b.constant(2, dtype)), zero))
        shifted = b.op("Where", is_all, b.op("Where", is_odd, lowest, zero), shifted)
    return b.op("Where", b.op("GreaterOrEqual", exponent, b.constant(width, np.float32)), zero, shifted)


def _shift_right(c: Context, x: str, exponent: str, dtype: np.dtype[np.generic]) -> str:
    """The arithmetic shift: floor(x / 2^n). Div rounds towards 0, so the remainder is subtracted before."""
    b = c.build
    is_all, factor = _power(c, exponent, dtype.itemsize * 8 - 1, dtype)
    floor = b.op("Div", b.op("Sub", x, b.op("Mod", x, factor)), factor)
    zero = b.constant(0, dtype)
    return b.op("Where", is_all, b.op("Where", b.op("Less", x, zero), b.constant(-1, dtype), zero), floor)


def _logical_shift(c: Context, bits: str, exponent: str) -> str:
    """Shift the 32 bits of an INT32 tensor right and fill with 0: for a negative x, floor(x / 2^n) + 2^(32-n).

    2^(32-n) exceeds INT32 for n = 1, so 2^(31-n) is added twice.
    """
    b, dtype = c.build, np.dtype(np.int32)
    one, width = b.constant(1, np.float32), b.constant(32, np.float32)
    is_filled = b.op("And", b.op("Less", bits, b.constant(0, dtype)), b.op("GreaterOrEqual", exponent, one))
    left = b.op("Sub", b.constant(31, np.float32), exponent)
    left = b.op("Min", b.op("Max", left, b.constant(0, np.float32)), b.constant(30, np.float32))
    half = b.cast(b.op("Pow", b.constant(2, np.float32), left), TensorProto.INT32)
    shifted = _shift_right(c, bits, exponent, dtype)
    filled = b.op("Where", is_filled, b.op("Add", b.op("Add", shifted, half), half), shifted)
    return b.op("Where", b.op("GreaterOrEqual", exponent, width), b.constant(0, dtype), filled)


def bitwise_not(c: Context) -> bool:
    """BitwiseNot: -1 - x for a signed integer, max - x for an unsigned one."""
    dtype = _dtype(c)
    top = -1 if dtype.kind == "i" else np.iinfo(dtype.name).max
    c.give(c.build.op("Sub", c.build.constant(top, dtype), c.input(0)))
    return True


def bitwise(op_type: str) -> Decomposition:
    """BitwiseAnd, BitwiseOr and BitwiseXor: split both operands into bits along a new axis, combine the bits, and sum
    bit_i * 2^i.

    UINT32 is cast to INT32 and back, and so are types of 64 bits, since Apple's runtimes compute these in INT32 anyway.
    """

    def decompose(c: Context) -> bool:
        b, dtype, elem_type = c.build, _dtype(c), c.values.elem_type(c.input(0))
        if dtype.itemsize >= 4 and elem_type != TensorProto.INT32:
            if any(_is_beyond_int32(c, name) for name in c.node.input):
                return False
            narrow = [b.cast(name, TensorProto.INT32) for name in c.node.input]
            c.give(b.cast(b.op(f"Bitwise{op_type}", *narrow), elem_type))
            return True
        bits = dtype.itemsize * 8 - (dtype.kind == "i")
        weights = b.constant(2 ** np.arange(bits, dtype=np.int64), np.int64)
        two = b.constant(2, np.int64)
        lowest = b.constant(-(2**bits), np.int64)
        pairs: list[tuple[str, str]] = []
        for name in (c.input(0), c.input(1)):
            wide = b.cast(name, TensorProto.INT64)
            is_negative = b.op("Less", wide, b.constant(0, np.int64))
            # Limit numbers of at least 0 to -1 before the subtraction. Where does not choose their difference, but
            # `graph.overflows` would refuse one that may be outside INT32.
            below = b.op("Min", wide, b.constant(-1, np.int64))
            low = b.op("Where", is_negative, b.op("Sub", below, lowest), wide)
            digits = b.op("Mod", b.op("Div", b.op("Unsqueeze", low, b.ints(-1)), weights), two)
            pairs.append((b.op("Equal", digits, b.constant(1, np.int64)), is_negative))
        digits = b.cast(b.op(op_type, pairs[0][0], pairs[1][0]), TensorProto.INT64)
        low = b.op("ReduceSum", b.op("Mul", digits, weights), b.ints(-1), keepdims=0)
        sign = b.cast(b.op(op_type, pairs[0][1], pairs[1][1]), TensorProto.INT64)
        result = b.op("Add", low, b.op("Mul", sign, lowest))
        c.give(b.cast(result, elem_type))
        return True

    return decompose


def _is_beyond_int32(c: Context, name: str) -> bool:
    """Whether a value is a constant of 64 bits with a number outside INT32."""
    value, limits = c.values.constant(name), np.iinfo(np.int32)
    if value is None or value.dtype.itemsize < 8 or not value.size:
        return False
    return int(value.min()) < limits.min or int(value.max()) > limits.max


TABLE: dict[str, Decomposition] = {
    "Acosh": acosh,
    "Asinh": asinh,
    "CastLike": cast_like,
    "Celu": celu,
    "IsNaN": is_nan,
    "IsInf": is_inf,
    "Sum": chain("Add"),
    "Max": chain("Max"),
    "Min": chain("Min"),
    "Mean": mean,
    "Dropout": dropout,
    "BitCast": bit_cast,
    "BitShift": bit_shift,
    "BitwiseNot": bitwise_not,
    "BitwiseAnd": bitwise("And"),
    "BitwiseOr": bitwise("Or"),
    "BitwiseXor": bitwise("Xor"),
}
