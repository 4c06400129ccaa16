"""Matrix products beyond fp16 that are scaled down afterwards, in all the ways in which exporters write this."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from support.half_cases.case import HalfCase, half_case, noise, number

_LARGE = {"q": noise(2, 4, 64) * 60, "k": noise(2, 64, 4, seed=1) * 60, "v": noise(2, 4, 8, seed=2)}
_SEEN = np.tril(np.ones((4, 4), bool))
_SMALL = {"d": number(1 / 800)}


def _scores(name: str, scaled: str, constants: Mapping[str, Any] | None = None, **feeds: Any) -> HalfCase:
    """Attention: the product `r` becomes `s` by a factor, both of shape (2, 4, 4); its Softmax is multiplied by the
    values.
    """
    nodes = f"r = MatMul (q, k) {scaled} p = Softmax (s) y = MatMul (p, v)"
    return half_case(name, nodes, constants, **_LARGE, **feeds)


SCORES = (
    _scores("divided_by_what_is_given", "s = Div (r, d)", d=number(800)),
    _scores("scaled_by_a_size", "f = Cast <to = 1> (n) d = Sqrt (f) s = Div (r, d)", n=np.array(640_000)),
    _scores(
        "reshaped_and_scaled",
        "a = Reshape (r, flat) b = Mul (a, d) s = Reshape (b, full)",
        {**_SMALL, "flat": np.array([8, 4]), "full": np.array([2, 4, 4])},
    ),
    _scores("masked_and_scaled", "a = Where (w, r, f) s = Mul (a, d)", {**_SMALL, "f": number(-1e9)}, w=_SEEN),
    _scores("summed_and_scaled", "a = Add (r, b) s = Mul (a, d)", {**_SMALL, "b": noise(4, seed=3) * 900}),
    _scores("scaled_far_down", "s = Mul (r, d)", {"d": number(1e-4)}),
)
