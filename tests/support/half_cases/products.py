"""Matrix products whose sums are beyond fp16, although their operands are not."""

from typing import Any

import numpy as np

from support.half_cases.case import half_case, noise, number


def _positive(*shape: int, scale: float = 1.0, seed: int = 0) -> Any:
    return np.abs(noise(*shape, seed=seed)) * np.float32(scale)


_SEVENTY = np.full((1, 16), 70, np.float32)
_CENTERS = noise(16, 8, seed=4) + np.float32(100)
_ATTENTION = """t = Transpose <perm = [0, 2, 1]> (k) kv = MatMul (t, v) n = MatMul (q, kv) s = ReduceSum (k, rows)
    u = Transpose <perm = [0, 2, 1]> (s) d = MatMul (q, u) y = Div (n, d)"""

PRODUCTS = (
    half_case(
        "linear_attention",
        _ATTENTION,
        {"rows": np.array([1])},
        q=_positive(1, 600, 8),
        k=_positive(1, 600, 8, scale=12, seed=1),
        v=_positive(1, 600, 8, scale=12, seed=2),
    ),
    half_case("gram", "t = Transpose (x) y = MatMul (x, t)", x=_SEVENTY),
    half_case(
        "expanded_distances",
        """p = Pow (x, two) a = ReduceSum (p, last) m = Mul (x, two) d = MatMul (m, c) s = Sub (a, d)
        y = Add (s, squares)""",
        {"two": number(2), "last": np.array([1]), "c": _CENTERS.T, "squares": np.square(_CENTERS).sum(1)},
        x=noise(6, 8, seed=3) + np.float32(100),
    ),
    half_case("gram_by_gemm", "y = Gemm <transB = 1> (x, x)", x=_SEVENTY),
    half_case("gram_by_einsum", 'y = Einsum <equation = "bi,ci->bc"> (x, x)', x=_SEVENTY),
    half_case(
        "gram_for_a_layer",
        "t = Transpose (x) p = MatMul (x, t) y = MatMul (p, w)",
        {"w": noise(2, 4)},
        x=noise(2, 64) * 99,
    ),
    half_case(
        "filters_given", "y = Conv (x, z)", x=_positive(1, 2, 6, 6, scale=100), z=_positive(1, 2, 5, 5, scale=90)
    ),
    half_case("sum_by_ones", "y = MatMul (x, w)", {"w": np.ones((600, 2), np.float32)}, x=_positive(2, 600, scale=300)),
    half_case(
        "sum_of_pixels",
        "y = Conv (x, w)",
        {"w": np.ones((1, 1, 20, 20), np.float32)},
        x=_positive(1, 1, 20, 20, scale=250),
    ),
    half_case(
        "sum_over_many_classes",
        "p = Sigmoid (x) y = MatMul (p, z)",
        x=noise(2, 700) + 6,
        z=_positive(700, 3, scale=250, seed=1),
    ),
)
