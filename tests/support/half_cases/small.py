"""Small numbers whose exact size matters, as operands of a logarithm, a division or a comparison with 0."""

import numpy as np

from support.half_cases.case import floats, half_case, noise, number

_SCORES = floats(0, -10, -12)
_BELOW = -(noise(3, 8) ** 2) * 6
_ONE = {"one": number(1)}
_SHARES = floats(0, -3, -5, -7, -2, -9, -11, -4)
_LAST = {"last": np.array([-1])}
_MEL = noise(64, 8) ** 2
_PARTED = "s = Slice (p, first, second, last) r = Slice (p, second, third, last) y = Div (s, r)"

SMALL = (
    half_case("logarithm_of_shares", "p = Softmax (x) y = Log (p)", x=floats(0, -10, -20)),
    half_case(
        "logarithm_of_all_shares",
        "p = Softmax (x) m = ReduceProd (p, last) y = Log (m)",
        _LAST,
        x=_SHARES,
    ),
    half_case(
        "geometric_mean_of_shares",
        "p = Softmax (x) m = ReduceProd (p, last) y = Pow (m, e)",
        {**_LAST, "e": number(0.125)},
        x=_SHARES,
    ),
    half_case(
        "logarithm_of_accumulated_shares",
        "p = Softmax (x) m = CumSum (p, axis) y = Log (m)",
        {"axis": np.array(1)},
        x=floats(-30, -20, -10, 0),
    ),
    half_case(
        "logarithm_of_mixed_shares",
        "p = Softmax (x) r = Reshape (p, shape) m = Conv (r, w) y = Log (m)",
        {"shape": np.array([1, 4, 1, 2]), "w": np.abs(noise(2, 4, 1, 1))},
        x=floats(0, -20, -1, -25, -2, -21, 0, -22),
    ),
    half_case(
        "logarithm_of_shares_times_a_matrix",
        "p = Softmax (x) m = MatMul (p, w) y = Log (m)",
        {"w": np.diag([0.5, 2.0, 1.0]).astype(np.float32)},
        x=floats(0, -20, -25),
    ),
    half_case("sign_of_a_logarithm_of_shares", "l = LogSoftmax (x) y = Sign (l)", x=floats(0, -10, -14)),
    half_case("logarithm_of_a_sigmoid", "n = Neg (x) m = Neg (n) p = Sigmoid (m) y = Log (p)", x=_SCORES),
    half_case("logarithm_of_an_exponential", "n = Abs (x) m = Neg (n) p = Exp (m) y = Log (p)", x=_SCORES * 3),
    half_case(
        "logarithm_of_a_product_of_shares",
        "p = Softmax (x) q = Sigmoid (z) m = Mul (p, q) y = Log (m)",
        x=_SCORES,
        z=_SCORES,
    ),
    half_case(
        "entropy", "p = Softmax (x) l = Log (p) m = Mul (p, l) y = ReduceSum (m, last)", _LAST, x=floats(0, -10, -20)
    ),
    half_case(
        "divergence",
        "p = Softmax (x) q = Softmax (z) r = Div (p, q) l = Log (r) m = Mul (p, l) y = ReduceSum (m, last)",
        _LAST,
        x=_BELOW,
        z=_BELOW[::-1].copy(),
    ),
    half_case(
        "logarithm_of_the_rest",
        "p = Sigmoid (x) s = Sub (c, p) l = Log (s) y = Neg (l)",
        {"c": number(1 + 1e-7)},
        x=-_SCORES,
    ),
    half_case(
        "logarithm_of_the_rest_of_a_square",
        "t = Tanh (x) s = Mul (t, t) d = Sub (one, s) y = Log (d)",
        _ONE,
        x=_SCORES / 3,
    ),
    half_case(
        "shares_above_zero",
        "p = Softmax (x) g = Greater (p, z) y = Cast <to = 1> (g)",
        {"z": number(0)},
        x=floats(0, -10, -20),
    ),
    half_case("shares_as_truth", "p = Softmax (x) g = Cast <to = 9> (p) y = Cast <to = 1> (g)", x=floats(0, -10, -20)),
    half_case("sign_of_shares", "p = Softmax (x) y = Sign (p)", x=floats(0, -10, -20)),
    half_case("inverse_of_shares", "p = Softmax (x) i = Reciprocal (p) y = Log (i)", x=floats(0, -10, -20)),
    half_case("inverse_root_of_a_sigmoid", "p = Sigmoid (x) r = Sqrt (p) y = Reciprocal (r)", x=_SCORES),
    half_case("power_of_a_sigmoid", "p = Sigmoid (x) y = Pow (p, e)", {"e": number(-0.5)}, x=_SCORES),
    half_case(
        "ratio_of_shares",
        f"p = Softmax (x) {_PARTED}",
        {"first": np.array([1]), "second": np.array([2]), "third": np.array([3]), **_LAST},
        x=floats(0, -21, -20),
    ),
    half_case(
        "share_of_the_rest", "p = Sigmoid (x) s = ReduceSum (p, last) y = Div (p, s)", _LAST, x=floats(-10, -11, -12)
    ),
    half_case(
        "logarithm_of_a_weighted_sum",
        "p = MatMul (x, w) c = Clip (p, low) y = Log (c)",
        {"w": _MEL, "low": number(1e-10)},
        x=noise(3, 64) ** 2 * np.float32(1e-9),
    ),
    half_case("logarithm_of_given", "y = Log (x)", x=floats(1e-9, 1e-12, 1)),
    half_case(
        "small_factors_in_a_row",
        "t = Tanh (x) a = Mul (t, down) b = Mul (a, down) c = Mul (b, up) y = Mul (c, up)",
        {"down": number(1e-4), "up": number(1e4)},
        x=noise(3, 8),
    ),
    half_case(
        "small_factors_of_what_is_not_known",
        "a = Mul (x, down) b = Div (a, up) c = Mul (b, up) y = Mul (c, up)",
        {"down": number(1e-4), "up": number(1e4)},
        x=noise(3, 8),
    ),
    half_case(
        "normalized_to_small_numbers",
        "a = LayerNormalization (x, s) b = Mul (a, up) y = Mul (b, up)",
        {"s": noise(8) * np.float32(1e-7), "up": number(3e3)},
        x=noise(3, 8),
    ),
    half_case(
        "small_layer_normalized",
        "a = Conv <pads = [1, 1]> (x, w, b) y = InstanceNormalization <epsilon = 1e-20> (a, s, z)",
        {
            "w": noise(4, 3, 3) * np.float32(1e-7),
            "b": noise(4) * np.float32(1e-7),
            "s": noise(4),
            "z": noise(4, seed=1),
        },
        x=noise(1, 3, 20),
    ),
)
