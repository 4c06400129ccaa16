"""Numbers that are too small for fp16. Most of them protect a logarithm or a division from zero."""

import numpy as np

from support.half_cases.case import floats, half_case, noise, number

_SMALL = floats(0, 1e-3, 1, 2)
_ZEROS = floats(0, 0, 0, 0)
_TINY = {"e": number(1e-12)}
_LAST = {"last": np.array([-1])}
_FACTORS = {"e": number(1e-9), "f": number(1e9)}

GUARDS = [
    half_case("log_max", "m = Max (x, e) y = Log (m)", _TINY, x=_SMALL),
    half_case("log_clip", "m = Clip (x, e) y = Log (m)", _TINY, x=_SMALL),
    half_case("log_add", "m = Add (x, e) y = Log (m)", _TINY, x=_SMALL),
    half_case(
        "log_both_ends",
        "m = Clip (x, e, f) n = Sub (one, m) a = Log (n) b = Log (m) y = Sub (b, a)",
        {"e": number(1e-7), "f": number(1 - 1e-7), "one": number(1)},
        x=floats(0, 1e-3, 0.5, 1),
    ),
    half_case("log_of_softmax", "s = Softmax (x) c = Clip (s, e) y = Log (c)", _TINY, x=floats(0, -10, -20, 5)),
    half_case("log_softmax", "y = LogSoftmax (x)", x=floats(0, -10, -20, 5)),
    half_case("quotient", "m = Add (x, e) y = Div (x, m)", {"e": number(1e-9)}, x=_SMALL),
    half_case("quotient_of_zeros", "m = Add (x, e) y = Div (x, m)", {"e": number(1e-9)}, x=_ZEROS),
    half_case("quotient_by_root", "m = Add (x, e) s = Sqrt (m) y = Div (x, s)", _TINY, x=_ZEROS),
    half_case("reciprocal", "m = Add (x, e) r = Reciprocal (m) y = Mul (x, r)", _TINY, x=_SMALL),
    half_case("reciprocal_of_root", "m = Add (x, e) s = Sqrt (m) r = Reciprocal (s) y = Mul (x, r)", _TINY, x=_ZEROS),
    half_case("power", "m = Add (x, e) r = Pow (m, h) y = Mul (x, r)", {**_TINY, "h": number(-0.5)}, x=_SMALL),
    half_case(
        "chosen", "z = Equal (x, zero) m = Where (z, e, x) y = Div (x, m)", {**_TINY, "zero": number(0)}, x=_SMALL
    ),
    half_case("normalized_sum", "s = ReduceSum (x, last) m = Add (s, e) y = Div (x, m)", _TINY | _LAST, x=_ZEROS),
    half_case("small_divisor", "m = Div (x, e) y = Mul (m, e)", _TINY, x=_SMALL),
    half_case("small_then_large", "m = Mul (x, e) y = Mul (m, f)", _FACTORS, x=_SMALL),
    half_case("large_then_small", "m = Mul (x, f) y = Mul (m, e)", _FACTORS, x=_SMALL),
    half_case(
        "small_into_product",
        "m = Mul (x, e) p = MatMul (m, w) y = Mul (p, f)",
        {**_FACTORS, "w": noise(4, 4)},
        x=_SMALL,
    ),
    half_case("large_offset", "m = Add (x, f) y = Sub (m, f)", {"f": number(131072)}, x=floats(0, 8, 16, -8)),
]
