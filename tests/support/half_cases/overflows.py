"""Exponentials, squares, sums, angles and integers beyond fp16, and tensors that are assembled by scatters."""

import numpy as np

from support.half_cases.case import HalfCase, floats, half_case, noise, number

_LARGE = np.concatenate([floats(1000, -2000, 3000, 10), floats(5, -1, 2, 0.5)])
_FAR = floats(-20, 20, 80, 0)
_NEAR_ZERO = floats(6e-5, -6e-5, 2e-4, -1e-4)
_ONE = {"one": number(1)}
_LAST = {"last": np.array([-1])}
_BYTES = np.random.default_rng(0).integers(-128, 128, (4, 64)).astype(np.int8)
_WEIGHTS = np.random.default_rng(1).integers(-128, 128, (64, 3)).astype(np.int8)
_DISTANCES = """
    a = ReduceSumSquare (x, last) q = Mul (z, z) b = ReduceSum <keepdims = 0> (q, last) t = Transpose (z)
    p = MatMul (x, t) c = Mul (p, two) d = Sub (a, c) f = Add (d, b) y = Sqrt (f)
"""
_ANGLES = "i = Cast <to = 1> (p) u = Unsqueeze (i, last) t = Mul (u, f) y = Cos (t)"
_PLACES = "m = Mul (p, w) f = Floor (m) i = Cast <to = 7> (f) y = GatherElements <axis = 1> (x, i)"


def _scattered(operator: str, kind: str, indices: object) -> HalfCase:
    name = f"{operator.lower()}_{kind}"
    feeds = {"x": np.ones((3, 2), np.float32), "i": indices, "u": np.arange(8, dtype=np.float32).reshape(4, 2) / 4}
    return half_case(name, f'y = {operator} <reduction = "{kind}"> (x, i, u)', **feeds)


_BEYOND = {"f": number(3e5), "g": np.ones(8, np.float32)}
"""A number that fp16 does not hold, and a norm's scale."""

OVERFLOWS = [
    half_case("sigmoid", "n = Neg (x) e = Exp (n) a = Add (e, one) y = Div (one, a)", _ONE, x=-_FAR),
    half_case("softmax", "e = Exp (x) s = ReduceSum (e, last) y = Div (e, s)", _LAST, x=floats(20, 21, 15, 0)),
    half_case("softplus", "e = Exp (x) a = Add (e, one) y = Log (a)", _ONE, x=_FAR),
    half_case("softplus_op", "y = Softplus (x)", x=_FAR),
    half_case("mish", "y = Mish (x)", x=_FAR),
    half_case("elu", "y = Elu (x)", x=_FAR),
    half_case("celu", "y = Celu <alpha = 0.01> (x)", x=floats(-1000, 2000, -0.005, 3)),
    half_case("elu_of_small_numbers", "y = Elu (x)", x=_NEAR_ZERO),
    half_case("asinh_of_small_numbers", "y = Asinh (x)", x=_NEAR_ZERO),
    half_case("asinh", "y = Asinh (x)", x=floats(-20000, 0.06, 0.0626, 3)),
    half_case("logarithm_beside_one", "a = Add (x, one) y = Log (a)", _ONE, x=np.abs(_NEAR_ZERO)),
    half_case(
        "exponential_less_one", "n = Abs (x) m = Neg (n) e = Exp (m) y = Sub (e, one)", _ONE, bound=2e-2, x=_NEAR_ZERO
    ),
    half_case("inverse_squares", "y = Pow (x, p)", {"p": number(-2)}, x=floats(1e-3, 2e-3, 1, 5)),
    half_case("exponentials", "y = Exp (x)", x=floats(20, 12, 15, 0)),
    half_case("log_sum_exp", "y = ReduceLogSumExp (x, last)", _LAST, x=floats(100, 0, -100, 99)),
    half_case("times_a_thousand", "y = Mul (x, c)", {"c": number(1000)}, x=floats(1, 200, 50, -60)),
    half_case("by_a_thousandth", "y = Div (x, c)", {"c": number(1e-3)}, x=floats(1, 200, 50, -60)),
    half_case("squares", "y = Mul (x, x)", x=_LARGE),
    half_case("gelu", 'y = Gelu <approximate = "tanh"> (x)', x=_LARGE),
    half_case("large_scores", "s = Mul (x, c) y = Softmax (s)", {"c": number(8)}, x=_LARGE),
    half_case("share_of_sum", "s = ReduceSum (x, last) y = Div (x, s)", _LAST, x=_LARGE * 10),
    half_case("many_summed", "s = ReduceSum (x, last) y = Sqrt (s)", _LAST, x=np.full((1, 512), 300, np.float32)),
    half_case("distances", _DISTANCES, {**_LAST, "two": number(2)}, x=noise(3, 16) * 500, z=noise(5, 16, seed=1) * 500),
    half_case(
        "angles", _ANGLES, {**_LAST, "f": np.array([1, 0.1, 0.01, 0.001], np.float32)}, p=np.array([[0, 700, 4001]])
    ),
    half_case(
        "places",
        _PLACES,
        {"w": number(3000)},
        p=floats(0.9999, 0.6999),
        x=np.arange(3000, dtype=np.float32)[None] % 7,
    ),
    half_case(
        "bias_of_int32",
        "d = DequantizeLinear (b, s, z) y = Add (x, d)",
        {"b": np.array([3_000_000, -200_000, 40, 1], np.int32), "s": number(1e-4), "z": np.array(0, np.int32)},
        x=floats(0, 0, 0, 0),
    ),
    half_case(
        "product_of_bytes",
        "q = Cast <to = 3> (x) p = MatMulInteger (q, w) f = Cast <to = 1> (p) y = Mul (f, s)",
        {"w": _WEIGHTS, "s": number(1e-3)},
        x=_BYTES.astype(np.float32),
    ),
    half_case(
        "scores_scaled_after_their_product",
        "t = Transpose<perm = [1, 0]>(x) p = MatMul(x, t) s = Div(p, d) a = Softmax(s) y = MatMul(a, v)",
        {"d": number(8), "v": noise(4, 3, seed=1)},
        x=noise(4, 64) * np.float32(60),
    ),
    *(
        _scattered("ScatterElements", kind, np.array([[0, 1], [2, 2], [0, 0], [1, 2]]))
        for kind in ("add", "mul", "max")
    ),
    *(_scattered("ScatterND", kind, np.array([[0], [2], [0], [1]])) for kind in ("add", "mul", "min")),
    half_case("layer_norm_of_large_numbers", "h = Mul (x, f) y = LayerNormalization (h, g)", _BEYOND, x=noise(4, 8)),
    half_case(
        "layer_norm_of_small_numbers",
        "h = Div (x, f) y = LayerNormalization <epsilon = 1e-20> (h, g)",
        _BEYOND,
        x=noise(4, 8),
    ),
    half_case(
        "instance_norm_of_large_numbers",
        "h = Mul (x, f) y = InstanceNormalization (h, a, b)",
        {**_BEYOND, "a": np.ones(2, np.float32), "b": np.zeros(2, np.float32)},
        x=noise(1, 2, 8),
    ),
    half_case("gelu_of_large_numbers", "h = Mul (x, f) e = Gelu (h) y = Div (e, f)", _BEYOND, x=noise(4, 8)),
]
