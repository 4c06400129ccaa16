"""Coordinates in images, and quantized inputs, whose last digits fp16 loses."""

import numpy as np

from support.half_cases.case import floats, half_case, noise, number

_IMAGE = noise(1, 2, 40, 2500)
_GRID = (np.random.default_rng(0).random((1, 8, 8, 2)) * 2 - 1).astype(np.float32)
_ROWS, _COLUMNS = np.meshgrid(np.arange(1, 9) * 4.3, np.arange(1, 9) * 297.7, indexing="ij")
_PIXELS = np.stack([_COLUMNS, _ROWS], -1)[None].astype(np.float32)

_CORNERS = np.random.default_rng(1).random((1, 60, 2)) * 2000
_SMALL_BOXES = np.repeat(
    np.concatenate([_CORNERS, _CORNERS + np.random.default_rng(2).random((1, 60, 2)) * 10 + 2], -1), 3, 1
)

_CENTRE = floats(52.52, 13.405)
_NEAR = (_CENTRE + noise(6, 2) / 100).astype(np.float32)
_LAYER = noise(2, 8) / 4
_KERNELS = noise(4, 1, 3, 3) / 10

PLACES = (
    half_case(
        "places_near_a_centre",
        "d = Sub (x, c) q = Div (d, s) m = MatMul (q, w) y = Tanh (m)",
        {"c": _CENTRE, "s": floats(0.01, 0.01), "w": _LAYER},
        x=_NEAR,
    ),
    half_case(
        "places_scaled_before_the_centre",
        "q = Mul (x, s) d = Add (c, q) m = MatMul (d, w) y = Tanh (m)",
        {"c": -100 * _CENTRE, "s": number(100), "w": _LAYER},
        x=_NEAR,
    ),
    half_case(
        "places_in_radians_near_a_centre",
        "r = Mul (x, k) d = Sub (r, c) q = Mul (d, s) m = MatMul (q, w) y = Tanh (m)",
        {"k": number(np.pi / 180), "c": (_CENTRE * np.pi / 180).astype(np.float32), "s": number(4000), "w": _LAYER},
        x=_NEAR,
    ),
    half_case(
        "places_whose_centre_is_in_a_bias",
        "m = Gemm (x, w, b) y = Tanh (m)",
        {"w": _LAYER * 100, "b": (-100 * _CENTRE @ _LAYER).reshape(-1).astype(np.float32)},
        x=_NEAR,
    ),
    half_case(
        "places_whose_centre_is_added_to_a_product",
        "m = MatMul (x, w) a = Add (m, b) y = Tanh (a)",
        {"w": _LAYER * 100, "b": (-100 * _CENTRE @ _LAYER).reshape(-1).astype(np.float32)},
        x=_NEAR,
    ),
    half_case(
        "places_in_a_batch_norm",
        "r = Reshape (x, shape) n = BatchNormalization (r, one, zero, c, v) m = MatMul (n, w) y = Tanh (m)",
        {
            "shape": np.array([6, 2]),
            "one": np.ones(2, np.float32),
            "zero": np.zeros(2, np.float32),
            "c": _CENTRE[0],
            "v": floats(1e-4, 1e-4)[0],
            "w": _LAYER,
        },
        x=_NEAR.reshape(2, 6),
    ),
    half_case(
        "years_since_a_year",
        "d = Sub (x, c) m = MatMul (d, w) y = Tanh (m)",
        {"c": number(2000), "w": _LAYER},
        x=(2000 + noise(6, 2) * 3).astype(np.float32),
    ),
    half_case(
        "logarithms_near_a_centre",
        "l = Log (x) d = Sub (l, c) q = Mul (d, s) m = MatMul (q, w) y = Tanh (m)",
        {"c": np.log(_CENTRE), "s": number(1000), "w": _LAYER},
        x=_NEAR,
    ),
    half_case(
        "roots_near_a_centre",
        "l = Sqrt (x) d = Sub (l, c) q = Mul (d, s) m = MatMul (q, w) y = Tanh (m)",
        {"c": np.sqrt(_CENTRE), "s": number(700), "w": _LAYER},
        x=_NEAR,
    ),
    half_case(
        "ratios_to_a_centre",
        "l = Div (x, c) d = Sub (l, one) q = Mul (d, s) m = MatMul (q, w) y = Tanh (m)",
        {"c": _CENTRE, "one": number(1), "s": number(3000), "w": _LAYER},
        x=_NEAR,
    ),
    half_case(
        "places_turned_before_and_after_the_centre",
        "t = Transpose (x) d = Sub (t, c) q = Mul (d, s) u = Transpose (q) m = MatMul (u, w) y = Tanh (m)",
        {"c": _CENTRE.T.copy(), "s": number(100), "w": _LAYER},
        x=_NEAR,
    ),
    half_case(
        "places_picked_and_joined_before_the_centre",
        "a = Gather <axis = 1> (x, one) b = Gather <axis = 1> (x, zero) j = Concat <axis = 1> (a, b) "
        "d = Sub (j, c) q = Mul (d, s) m = MatMul (q, w) y = Tanh (m)",
        {
            "one": np.array([1]),
            "zero": np.array([0]),
            "c": _CENTRE[:, ::-1].copy(),
            "s": number(100),
            "w": _LAYER,
        },
        x=_NEAR,
    ),
    half_case(
        "places_of_two_inputs_joined_before_the_centre",
        "j = Concat <axis = 1> (x, z) d = Sub (j, c) q = Mul (d, s) m = MatMul (q, w) y = Tanh (m)",
        {"c": _CENTRE, "s": number(100), "w": _LAYER},
        x=_NEAR[:, :1].copy(),
        z=_NEAR[:, 1:].copy(),
    ),
    half_case(
        "places_that_replace_missing_ones",
        "g = Greater (x, zero) r = Where (g, x, c) d = Sub (r, c) q = Mul (d, s) m = MatMul (q, w) y = Tanh (m)",
        {"zero": number(0), "c": _CENTRE, "s": number(100), "w": _LAYER},
        x=_NEAR,
    ),
    half_case(
        "means_near_a_centre",
        "r = ReduceMean <keepdims = 1> (x, axes) d = Sub (r, c) q = Mul (d, s) y = Tanh (q)",
        {"axes": np.array([0]), "c": _CENTRE, "s": number(50)},
        x=_NEAR,
    ),
    half_case(
        "places_scaled_before_a_batch_norm",
        "r = Mul (x, k) n = BatchNormalization (r, one, zero, c, v) y = Tanh (n)",
        {
            "k": number(np.pi / 180),
            "one": np.ones(2, np.float32),
            "zero": np.zeros(2, np.float32),
            "c": (_CENTRE[0] * np.pi / 180).astype(np.float32),
            "v": np.full(2, 3e-8, np.float32),
        },
        x=_NEAR,
    ),
    half_case(
        "squares_beside_the_number",
        "p = Mul (x, x) h = Mul (x, c) d = Sub (p, h) q = Mul (d, s) y = Tanh (q)",
        {"c": _CENTRE, "s": number(2)},
        x=_NEAR,
    ),
    half_case(
        "a_picture_whose_mean_is_in_a_bias",
        "y = Conv (x, w, b)",
        {"w": _KERNELS, "b": (-300 * _KERNELS.sum(axis=(1, 2, 3))).astype(np.float32)},
        x=(300 + noise(1, 1, 8, 8)).astype(np.float32),
    ),
    half_case("grid_given", "y = GridSample (x, g)", x=_IMAGE, g=_GRID),
    half_case(
        "grid_of_pixels",
        "m = Mul (g, w) s = Sub (m, one) y = GridSample <align_corners = 1> (x, s)",
        {"w": np.array([2 / 2499, 2 / 39], np.float32), "one": number(1)},
        x=_IMAGE,
        g=_PIXELS,
    ),
    half_case(
        "grid_of_angles",
        "g = AffineGrid (t, to) y = GridSample (x, g)",
        {"to": np.array([1, 2, 9, 11])},
        x=_IMAGE,
        t=np.array([[[0.9, 0.1, 0.05], [-0.1, 0.8, 0.02]]], np.float32),
    ),
    half_case(
        "grid_moved_by_a_layer",
        "f = MatMul (u, w) h = Tanh (f) e = Mul (h, c) a = Add (e, g) y = GridSample (x, a)",
        {"w": noise(4, 2) / 2, "c": number(0.01), "g": _GRID},
        x=_IMAGE,
        u=noise(1, 8, 8, 4),
    ),
    half_case(
        "weights_of_pixels",
        "d = Sub (p, row) a = Abs (d) n = Sub (one, a) h = Relu (n) y = MatMul (h, x)",
        {"row": np.arange(2500, dtype=np.float32), "one": number(1)},
        p=np.array([[700.3], [2300.7], [11.6]], np.float32),
        x=noise(2500, 3),
    ),
    half_case(
        "levels_of_an_input",
        "q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z)",
        {"s": number(0.0137), "z": np.array(3, np.int8)},
        bound=2e-3,
        x=np.linspace(-1.7, 1.7, 999, dtype=np.float32)[None],
    ),
    half_case(
        "small_boxes_far_from_0",
        "s = Sigmoid (p) n = NonMaxSuppression (x, s, most, half, least) y = Cast <to = 1> (n)",
        {"most": np.array([100], np.int64), "half": floats(0.5)[0], "least": floats(0.1)[0]},
        x=(_SMALL_BOXES + 0.7 * noise(1, 180, 4)).astype(np.float32),
        p=noise(1, 1, 180),
    ),
)
