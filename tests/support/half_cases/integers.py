"""Integers, quantization levels and comparisons, whose results rounding to fp16 would change."""

from typing import Any

import numpy as np

from support.half_cases.case import floats, half_case, noise


def _integers(*shape: int, most: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, most, shape)


_WEIGHTS = _integers(64, 8, most=255, seed=1).astype(np.uint8)
_SIGNED = _integers(8, 3, 3, 3, most=127, seed=2).astype(np.int8)

INTEGERS = (
    half_case(
        "dynamic_product",
        """q, s, z = DynamicQuantizeLinear(x)
        p = MatMulInteger(q, w, z, wz)
        pf = Cast<to = 1>(p)
        scale = Mul(s, ws)
        y = Mul(pf, scale)""",
        {"w": _WEIGHTS, "wz": np.uint8(3), "ws": np.float32(1e-4)},
        x=noise(5, 64) * 3 + 2,
    ),
    half_case(
        "dynamic_product_of_small_numbers",
        """q, s, z = DynamicQuantizeLinear(x)
        p = MatMulInteger(q, w, z, wz)
        pf = Cast<to = 1>(p)
        first = Mul(pf, s)
        y = Mul(first, ws)""",
        {"w": _WEIGHTS, "wz": np.uint8(3), "ws": np.full((8,), 0.01, np.float32)},
        x=noise(5, 64) * np.float32(0.01),
    ),
    half_case(
        "dynamic_convolution",
        """q, s, z = DynamicQuantizeLinear(x)
        p = ConvInteger(q, w, z)
        biased = Add(p, bias)
        pf = Cast<to = 1>(biased)
        scale = Mul(s, ws)
        scaled = Mul(pf, scale)
        y = Relu(scaled)""",
        {"w": _SIGNED, "ws": np.float32(1e-3), "bias": np.full((1, 8, 1, 1), 90000, np.int32)},
        x=noise(1, 3, 8, 8) + 1,
    ),
    half_case(
        "levels_of_rows",
        """a = Abs(x)
        most = ReduceMax<keepdims = 1>(a, last)
        s = Div(most, c127)
        scaled = Div(x, s)
        q = Round(scaled)
        p = MatMul(q, w)
        back = Mul(p, s)
        y = Mul(back, ws)""",
        {
            "last": np.array([1]),
            "c127": np.float32(127),
            "w": _WEIGHTS.astype(np.float32),
            "ws": np.float32(1e-3),
        },
        x=noise(5, 64) + 2,
    ),
    half_case(
        "integers_scaled_down",
        "f = Cast<to = 1>(x) z = Div(f, c) y = Sin(z)",
        {"c": np.float32(100000)},
        x=np.array([[70000, 250000, -300000]]),
    ),
    half_case(
        "integers_less_their_mean",
        "f = Cast<to = 1>(x) d = Sub(f, c) y = Mul(d, s)",
        {"c": np.float32(1.7e9), "s": np.float32(0.01)},
        x=np.array([[1_700_000_000, 1_700_010_240, 1_699_000_832]], np.int32),
    ),
    half_case(
        "integers_sliced_and_weighed",
        "p = Slice(x, start, end, one) f = Cast<to = 1>(p) y = MatMul(f, w)",
        {"start": np.array([1]), "end": np.array([3]), "one": np.array([1]), "w": floats(1e-3, 2e-3).reshape(2, 1)},
        x=np.array([[1, 90000, 170000]], np.int32),
    ),
    half_case(
        "comparison_with_a_split",
        "l = LessOrEqual(x, split) y = Cast<to = 1>(l)",
        {"split": np.float32(10.001)},
        x=floats(10.0005, 10.002, 10.001, 70000),
    ),
    half_case(
        "comparison_of_columns",
        "g = GatherElements<axis = 1>(x, i) d = Mul(g, c) l = Less(d, split) y = Cast<to = 1>(l)",
        {"i": np.array([[0, 2, 1]]), "c": np.float32(2), "split": floats(20.001, 3.0005, 5.001)},
        x=floats(10.0, 2.5, 1.5004),
    ),
    half_case(
        "comparison_of_a_difference",
        "d = Sub(x, mean) l = Less(d, split) y = Cast<to = 1>(l)",
        {"mean": np.float32(0.5), "split": floats(20.001, 3000.3, 5.001)},
        x=floats(20.5, 3000.7, 5.503),
    ),
    half_case(
        "look_up_of_numbers",
        "e = Equal(x, key) y = Where(e, a, b)",
        {"key": np.float32(1000.25), "a": np.float32(1), "b": np.float32(0)},
        x=floats(1000.25, 1000.3, 1000.2),
    ),
    half_case(
        "integers_of_a_table",
        "p = ArgMax<axis = 0, keepdims = 0>(x) g = Gather(t, p) f = Cast<to = 1>(g) y = Mul(f, c)",
        {"t": np.array([1, 70000, 200000, -90000]), "c": np.float32(1e-4)},
        x=np.eye(4, dtype=np.float32),
    ),
    half_case(
        "integers_limited",
        "g = Clip(x, low, high) f = Cast<to = 1>(g) y = Sub(f, c)",
        {"low": np.array(0), "high": np.array(100000), "c": np.float32(69000)},
        x=np.array([[5, 200000, 70000, -5]]),
    ),
    half_case(
        "bytes_scaled_up",
        "f = Cast<to = 1>(x) g = Mul(f, up) y = Mul(g, down)",
        {"up": np.float32(1000), "down": np.float32(1e-5)},
        x=np.array([[5, 200, 255, 7]], np.uint8),
    ),
    half_case(
        "range_of_a_given_length",
        "r = Range(zero, n, one) f = Cast<to = 1>(r) y = Mul(f, c)",
        {"zero": np.array(0), "one": np.array(1), "c": np.float32(1e-5)},
        n=np.array(80000),
    ),
    half_case(
        "place_of_the_largest",
        "a = ArgMax<axis = 1>(x) f = Cast<to = 1>(a) y = Div(f, c)",
        {"c": np.float32(1e4)},
        x=np.eye(1, 80000, 79999, dtype=np.float32),
    ),
    half_case(
        "distance_of_places",
        "f = Cast<to = 1>(x) a = Unsqueeze(f, first) b = Unsqueeze(f, second) y = Sub(a, b)",
        {"first": np.array([1]), "second": np.array([2])},
        x=np.array([[3000, 3001, 3003, 3010]]),
    ),
    half_case(
        "integers_less_a_constant",
        "f = Cast<to = 1>(x) y = Sub(f, c)",
        {"c": np.float32(2048)},
        x=np.array([[2049, 2051, 2053, 2048]]),
    ),
    half_case("behind_the_point", "f = Floor(x) y = Sub(x, f)", x=floats(2049.5, 3003.25, 20.49, 1.25)),
    half_case("remainder", "y = Mod<fmod = 1>(x, c)", {"c": np.float32(7)}, x=floats(2049, 3003.4, 20.49, 1)),
    half_case(
        "remainder_by_a_fraction", "y = Mod<fmod = 1>(x, c)", {"c": np.float32(1.3)}, x=floats(255.5, 128.25, -3.75)
    ),
    half_case(
        "remainder_of_a_product",
        "p = MatMul(x, w) y = Mod<fmod = 1>(p, c)",
        {"c": np.float32(0.3), "w": np.eye(3, dtype=np.float32)},
        x=floats(255.5, 128.25, -3.75),
    ),
    half_case(
        "place_of_the_largest_given", "a = ArgMax<axis = 1>(x) y = Cast<to = 1>(a)", x=floats(1.0001, 1.0002, 1.0003, 0)
    ),
    half_case("shares_of_given", "y = Softmax(x)", x=floats(3000, 3001, 2999, 3000.5)),
    half_case("angles_that_are_given", "y = Sin(x)", x=floats(2049.5, 4097.3, 8191.7, 10.01)),
    half_case(
        "buckets_of_shares",
        "s = Sigmoid(x) m = Mul(s, c) f = Floor(m) i = Cast<to = 7>(f) y = Gather(t, i)",
        {"c": np.float32(5000), "t": noise(5000)},
        x=noise(3, 40),
    ),
    half_case(
        "counts_of_what_a_layer_makes",
        "p = MatMul(x, w) t = Tanh(p) m = Mul(t, c) f = Ceil(m) i = Cast<to = 7>(f) j = Mod(i, d) y = Gather(r, j)",
        {"c": np.float32(3000), "w": noise(8, 8) * np.float32(0.2), "d": np.array(10), "r": noise(10)},
        x=noise(3, 8),
    ),
    half_case(
        "ends_of_bins",
        "a = Abs(x) f = Floor(a) s = Sign(x) w = Mul(f, s) q = Div(w, c) m = Mul(q, c) y = Ceil(m)",
        {"c": np.float32(23)},
        x=floats(3.25, 6.5, -7.5, 12.25, 13.0, 1.0),
    ),
    half_case(
        "above_the_mean",
        "m = ReduceMean(x, axes) g = Greater(x, m) y = Cast<to = 1>(g)",
        {"axes": np.array([1])},
        x=floats(1.0001, 1.0002, 1.0003, 1.0001),
    ),
    half_case(
        "sectors_of_angles",
        "a = Atan(x) m = Mul(a, c) y = Floor(m)",
        {"c": np.float32(1000)},
        x=np.tan(np.array([[0.70095, 0.8112, 0.6039]])).astype(np.float32),
        bound=1e-4,
    ),
)
