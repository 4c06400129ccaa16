"""Normalizations whose squares are too large for fp16 and whose epsilons are too small."""

import numpy as np

from support.half_cases.case import floats, half_case, noise, number

_LARGE = np.concatenate([floats(1000, -2000, 3000, 10), floats(5, -1, 2, 0.5)])
_ZEROS = floats(0, 0, 0, 0)
_TINY = {"e": number(1e-12)}
_LAST = {"last": np.array([-1])}
_GAIN = {"g": np.arange(1, 5, dtype=np.float32)}
_LAYER = """
    m = ReduceMean (x, last) d = Sub (x, m) p = Pow (d, two) v = ReduceMean (p, last) a = Add (v, e) s = Sqrt (a)
    y = Div (d, s)
"""
_RMS = """
    q = Mul (x, x) v = ReduceMean (q, last) a = Add (v, e) s = Sqrt (a) r = Reciprocal (s) n = Mul (x, r)
    y = Mul (n, g)
"""
_L2 = "q = ReduceL2 (x, last) m = Clip (q, e) y = Div (x, m)"
_CHANNELS = {"s": np.array([1, 2], np.float32), "b": np.array([0, 1], np.float32)}
_VARIANCES = {"m": np.array([3, 4000], np.float32), "v": np.array([1e7, 9.8e7], np.float32)}

NORMS = [
    half_case(
        "batch_norm_of_small_variance",
        "y = BatchNormalization <epsilon = 1e-5> (x, s, b, m, v)",
        {"b": np.zeros(2, np.float32), "m": np.zeros(2, np.float32), "v": np.array([1e-8, 2], np.float32)},
        x=floats(0.5, 1, 0.5, 1).reshape(2, 2),
        s=np.array([1, 2], np.float32),
    ),
    half_case("layer_norm", _LAYER, {**_TINY, **_LAST, "two": number(2)}, x=_LARGE),
    half_case("layer_norm_op", "y = LayerNormalization <epsilon = 1e-12> (x, g)", _GAIN, x=_LARGE),
    half_case("layer_norm_of_zeros", "y = LayerNormalization <epsilon = 1e-12> (x, g)", _GAIN, x=_ZEROS),
    half_case("rms_norm", _RMS, {**_LAST, **_GAIN, "e": number(1e-6)}, x=_LARGE),
    half_case("l2_norm", _L2, _TINY | _LAST, x=_LARGE),
    half_case("l2_norm_of_zeros", _L2, _TINY | _LAST, x=_ZEROS),
    half_case(
        "l2_norm_of_whole_numbers",
        "f = Cast <to = 1> (x) y = LpNormalization <axis = -1, p = 2> (f)",
        x=np.array([[70_000, -1_000_000, 2_000_000, 3]], np.int32),
    ),
    half_case(
        "chosen_and_moved_between",
        "f = Cast <to = 1> (x) t = Reshape (f, two) n = Max (t, f) m = ReduceMax <keepdims = 1> (n) y = Div (f, m)",
        {"two": np.array([1, 4])},
        x=np.array([[70_000, -1_000_000, 2_000_000, 3]], np.int32),
    ),
    half_case("l1_norm", "y = LpNormalization <axis = -1, p = 1> (x)", x=floats(30000, -30000, 30000, 30000)),
    half_case(
        "variance_by_squares",
        "m = ReduceMean (x, last) q = Pow (x, two) n = ReduceMean (q, last) w = Mul (m, m) y = Sub (n, w)",
        {**_LAST, "two": number(2)},
        bound=5e-2,
        x=noise(1, 64) + 30,
    ),
    half_case(
        "deviation_by_squares_of_channels",
        """
            m = GlobalAveragePool (x) q = Mul (x, x) n = GlobalAveragePool (q) w = Mul (m, m) v = Sub (n, w)
            y = Sqrt (v)
        """,
        bound=5e-2,
        x=noise(1, 2, 8, 8) + 100,
    ),
    half_case("lp_norm", "y = LpNormalization <axis = -1, p = 2> (x)", x=_LARGE),
    half_case(
        "cosine",
        """
            p = Mul (x, z) n = ReduceSum (p, last) a = ReduceL2 (x, last) b = ReduceL2 (z, last) d = Mul (a, b)
            m = Max (d, e) y = Div (n, m)
        """,
        _TINY | _LAST,
        x=_LARGE,
        z=_LARGE[::-1].copy(),
    ),
    half_case(
        "squares_through_conv",
        "q = Mul (x, x) c = Conv (q, w) a = Add (c, one) s = Sqrt (a) y = Div (x, s)",
        {"w": np.abs(noise(2, 2, 1, seed=1)), "one": np.ones((1, 2, 1), np.float32)},
        x=noise(1, 2, 8) * 800,
    ),
    half_case("sum_of_squares", "q = ReduceSumSquare (x, last) s = Sqrt (q) y = Div (x, s)", _LAST, x=_LARGE),
    half_case(
        "instance_norm",
        "y = InstanceNormalization <epsilon = 1e-12> (x, s, b)",
        _CHANNELS,
        x=noise(1, 2, 8) * 2000,
    ),
    half_case("batch_norm", "y = BatchNormalization (x, s, b, m, v)", _CHANNELS | _VARIANCES, x=noise(1, 2, 8) * 5000),
    half_case(
        "batch_norm_after_conv",
        "c = Conv (x, w) y = BatchNormalization (c, s, b, m, v)",
        {**_CHANNELS, **_VARIANCES, "w": noise(2, 2, 3, seed=1) * 5},
        x=noise(1, 2, 8) * 5000,
    ),
    half_case(
        "batch_norm_of_small_variances",
        "y = BatchNormalization <epsilon = 1e-12> (x, s, b, m, v)",
        {
            "s": np.array([1e-4, 2e-4], np.float32),
            "b": np.array([0, 1], np.float32),
            "m": np.array([3, 4], np.float32),
            "v": np.array([1e-9, 1e-8], np.float32),
        },
        x=noise(1, 2, 8),
    ),
]
