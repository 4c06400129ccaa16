"""Products, sums and inverses beyond fp16 that later constants or divisions bring back into its range."""

import numpy as np

from support.half_cases.case import floats, half_case, noise, number

_ROWS = noise(4, 64) * 300
_WEIGHTS = noise(64, 8, seed=1) * 20
_IMAGE = np.abs(noise(1, 3, 6, 6)) * 1000
_FILTERS = noise(4, 3, 3, 3, seed=1) * 40
_SMALL = {"c": number(1e-4)}
_CHANNELS = np.array([1e-4, 2e-3, 5e-5, 1e-3], np.float32)
_LEFT, _RIGHT = floats(40_000, -39_000, 100), floats(39_000, -41_000, 3)

SCALED = (
    half_case(
        "gemm_scaled", "p = Gemm (x, w, b) y = Mul (p, c)", {**_SMALL, "w": _WEIGHTS, "b": noise(8) * 9e4}, x=_ROWS
    ),
    half_case("conv_divided", "p = Conv (x, w) y = Div (p, d)", {"w": _FILTERS, "d": number(1e4)}, x=_IMAGE),
    half_case(
        "transposed_scaled",
        "p = ConvTranspose (x, w, b) r = Relu (p) y = Mul (c, r)",
        {**_SMALL, "w": noise(3, 4, 3, 3, seed=1) * 40, "b": noise(4, seed=2) * 9e4},
        x=_IMAGE,
    ),
    half_case("product_of_given", "n = Neg (x) m = Mul (x, n) y = Mul (m, c)", _SMALL, x=floats(1000, -2000, 3000, 10)),
    half_case("product_of_two", "m = Mul (x, z) y = Mul (m, c)", _SMALL, x=floats(1000, -2000), z=floats(300, 400)),
    half_case(
        "product_of_layers",
        "a = MatMul (x, v) b = MatMul (x, w) m = Mul (a, b) y = Mul (m, c)",
        {"c": number(1e-3), "w": noise(64, 8, seed=1), "v": noise(64, 8, seed=2)},
        x=noise(4, 64) * 100,
    ),
    half_case(
        "relu_scaled", "p = MatMul (x, w) r = Relu (p) y = Mul (r, c)", {"c": number(1e-5), "w": _WEIGHTS}, x=_ROWS
    ),
    half_case(
        "layer_scaled",
        "p = MatMul (x, w) a = Add (p, b) r = LeakyRelu (a) y = Mul (r, c)",
        {"c": number(1e-4), "w": _WEIGHTS, "b": noise(8, seed=4) * 1e5},
        x=_ROWS,
    ),
    half_case(
        "channels_of_a_product",
        "p = MatMul (x, w) y = Mul (p, c)",
        {"w": _WEIGHTS[:, :4], "c": _CHANNELS},
        x=_ROWS,
    ),
    half_case(
        "channels_of_scores",
        "p = MatMul (x, z) y = Div (p, c)",
        {"c": 1 / _CHANNELS},
        x=_ROWS,
        z=_WEIGHTS[:, :4],
    ),
    half_case(
        "channels_of_a_conv",
        "p = Conv (x, w) r = Relu (p) y = Mul (r, c)",
        {"w": _FILTERS, "c": _CHANNELS.reshape(4, 1, 1)},
        x=_IMAGE,
    ),
    half_case(
        "two_readers",
        "p = MatMul (x, w) a = Mul (p, c) b = Mul (p, e) s = Sigmoid (b) y = Add (a, s)",
        {**_SMALL, "e": number(3e-5), "w": _WEIGHTS},
        x=_ROWS,
    ),
    half_case(
        "two_readers_of_given",
        "p = MatMul (x, z) a = Mul (p, c) b = Mul (p, e) y = Sub (a, b)",
        {**_SMALL, "e": number(3e-5)},
        x=_ROWS,
        z=_WEIGHTS,
    ),
    half_case(
        "far_down", "p = MatMul (x, z) r = Relu (p) y = Mul (r, c)", {"c": number(1e-6)}, x=_ROWS * 50, z=_WEIGHTS * 50
    ),
    half_case("share_of_spread", "a = ReduceMax (x) b = ReduceMin (x) d = Sub (a, b) y = Div (x, d)", x=_LEFT),
    half_case("mean_of_two", "s = Add (a, b) y = Div (s, d)", {"d": number(2)}, a=_LEFT, b=_RIGHT),
    half_case(
        "spread",
        "a = ReduceMax (x) b = ReduceMin (x) d = Sub (a, b) n = Sub (x, b) y = Div (n, d)",
        x=_LEFT,
    ),
    half_case(
        "spread_scaled",
        "m = Max (a, b) n = Min (a, b) d = Sub (m, n) y = Mul (d, c)",
        {"c": number(0.1)},
        a=_LEFT,
        b=-_RIGHT,
    ),
    half_case(
        "inverse_scaled", "r = Reciprocal (x) y = Mul (r, c)", {"c": number(1e-3)}, x=floats(1e-5, -3e-6, 2, 1e-4)
    ),
    half_case(
        "one_by_given",
        "r = Div (c, x) y = Mul (r, e)",
        {"c": number(1), "e": number(1e-3)},
        x=floats(1e-5, -3e-6, 2, 1e-4),
    ),
    half_case(
        "raised_and_scaled", "m = Mul (x, a) y = Mul (m, c)", {**_SMALL, "a": number(200)}, x=floats(1000, -3e4, 5)
    ),
    half_case(
        "share_of_two", "d = Sub (a, b) s = Add (a, b) y = Div (d, s)", a=floats(4e4, 3e4, 5), b=floats(3e4, 6e4, 7)
    ),
    half_case("mean_of_three", "s = Add (a, b) t = Add (s, a) y = Div (t, d)", {"d": number(3)}, a=_LEFT, b=_RIGHT),
    half_case("root_of_given", "m = Mul (a, b) y = Sqrt (m)", a=floats(4e4, 3e4), b=floats(3e4, 6e4)),
    half_case(
        "products_summed",
        "m = Mul (x, z) s = ReduceSum (m, last) y = Mul (s, c)",
        {**_SMALL, "last": np.array([-1])},
        x=_ROWS,
        z=_ROWS[::-1] * 2,
    ),
)
