"""Attention with masked scores, in all the ways in which exporters write masks."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from support.half_cases.case import HalfCase, half_case, noise, number

_LOWEST = float(np.finfo(np.float32).min)
_HEADS = {"q": noise(2, 2, 4, 8), "k": noise(2, 2, 8, 4, seed=1), "v": noise(2, 2, 4, 8, seed=2)}
_KEYS = {**_HEADS, "k": noise(2, 2, 4, 8, seed=1)}
_CONSTANTS = {"c": number(0.35), "lowest": number(_LOWEST), "one": number(1), "zero": number(0)}

_SEEN = np.tril(np.ones((4, 4), bool))
_ROW_EMPTY = np.array([[1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]], bool)
_PADDED = np.array([[0, 0, 1, 1], [1, 1, 1, 1]], bool)[:, None, None]
"""(2, 1, 1, 4): padded on the left, so that the first rows of a causal mask are masked whole."""
_LEFT = {"am": _PADDED.astype(np.int64)}
_KEPT = {"am": np.array([[1, 1, 1, 0], [0, 0, 0, 0]]).reshape(2, 1, 1, 4)}
_ALL_KEPT = {"am": np.ones((2, 1, 1, 4), np.int64)}
_INVERTED = "a = Cast <to = 1> (am) b = Sub (one, a) m = Mul (b, {0})"
_ADDED = "s = Add (t, m)"
_CAUGHT = "n = Softmax (s) i = IsNaN (n) p = Where (i, zero, n)"


def _attention(
    name: str,
    mask: str,
    constants: Mapping[str, Any] | None = None,
    softmax: str = "p = Softmax (s)",
    bound: float = 1e-2,
    **feeds: Any,
) -> HalfCase:
    """Attention: scores `r` become `t` by a factor and `s` by the mask, all of shape (2, 2, 4, 4); the Softmax is
    multiplied by the values.
    """
    nodes = f"r = MatMul (q, k) t = Mul (r, c) {mask} {softmax} y = MatMul (p, v)"
    return half_case(name, nodes, {**_CONSTANTS, **(constants or {})}, bound, **_HEADS, **feeds)


def _rows(value: float) -> Any:
    """A mask (2, 1, 4, 4): it masks two whole rows, and the last key of two more rows."""
    array = np.zeros((2, 1, 4, 4), np.float32)
    array[0, 0, :2] = value
    array[0, :, :, 3] = value
    return array


def _unseen(value: float, seen: Any = _SEEN) -> Any:
    return np.where(seen, 0, value).astype(np.float32)


MASKS = [
    _attention("inverted", f"{_INVERTED.format('lowest')} {_ADDED}", **_KEPT),
    _attention("inverted_of_ones", f"{_INVERTED.format('lowest')} {_ADDED}", **_ALL_KEPT),
    _attention("inverted_ten_thousand", f"{_INVERTED.format('f')} {_ADDED}", {"f": number(-1e4)}, **_KEPT),
    _attention("inverted_billion", f"{_INVERTED.format('f')} {_ADDED}", {"f": number(-1e9)}, **_KEPT),
    _attention("subtracted", f"{_INVERTED.format('f')} s = Sub (t, m)", {"f": number(1e30)}, **_KEPT),
    _attention(
        "less_one", f"a = Cast <to = 1> (am) b = Sub (a, one) m = Mul (b, f) {_ADDED}", {"f": number(1e30)}, **_KEPT
    ),
    _attention("filled", f"b = Equal (am, nil) m = Where (b, lowest, zero) {_ADDED}", {"nil": np.array(0)}, **_KEPT),
    _attention("filled_scores", "b = Equal (am, nil) s = Where (b, lowest, t)", {"nil": np.array(0)}, **_KEPT),
    _attention("infinite_scores", "s = Where (w, t, f)", {"f": number(-np.inf)}, w=_SEEN),
    _attention("constant_lowest", _ADDED, {"m": _rows(_LOWEST)}),
    _attention("constant_ten_thousand", _ADDED, {"m": _rows(-1e4)}),
    # Even fp32 rounds scores of this size to multiples of 1/16.
    _attention("constant_million", _ADDED, {"m": _rows(-1e6)}, bound=3e-2),
    _attention("constant_billion", _ADDED, {"m": _rows(-1e9)}),
    _attention("constant_infinite", _ADDED, {"m": _unseen(-np.inf)}),
    _attention("constant_twice", "u = Add (t, m) s = Add (u, m)", {"m": _rows(-1e9)}),
    _attention(
        "causal", f"m = Trilu (f, above) {_ADDED}", {"f": np.full((4, 4), -np.inf, np.float32), "above": np.array(1)}
    ),
    _attention(
        "causal_and_inverted",
        f"{_INVERTED.format('lowest')} e = Add (m, f) s = Add (t, e)",
        {"f": _unseen(_LOWEST)},
        **_KEPT,
    ),
    _attention(
        "one_after_the_other",
        f"{_INVERTED.format('lowest')} u = Add (t, f) s = Add (u, m)",
        {"f": _unseen(-1e4)},
        **_KEPT,
    ),
    _attention(
        "multiplied",
        f"a = Cast <to = 1> (am) b = Mul (a, f) d = Sub (one, b) m = Mul (d, lowest) {_ADDED}",
        {"f": _SEEN.astype(np.float32)},
        **_ALL_KEPT,
    ),
    _attention("given_lowest", _ADDED, m=_rows(_LOWEST)),
    _attention("given_infinite", _ADDED, m=_unseen(-np.inf, np.stack([_SEEN, _SEEN])[:, None])),
    _attention("given_ten_thousand", _ADDED, m=_rows(-1e4)),
    _attention("given_twice", "u = Add (t, m) s = Add (u, m)", m=_rows(-1e9)),
    _attention("given_bias", _ADDED, m=noise(2, 1, 4, 4, seed=3)),
    _attention("given_and_limited", "u = Add (t, m) s = Max (u, lowest)", m=_rows(_LOWEST)),
    _attention("scaled_after", "m = Where (w, zero, lowest) u = Add (r, m) s = Mul (u, c)", w=_SEEN),
    _attention("nan_caught", _ADDED, {"m": _unseen(-np.inf, _ROW_EMPTY)}, _CAUGHT),
    _attention("nan_of_given_caught", "s = Where (w, t, f)", {"f": number(-np.inf)}, _CAUGHT, w=_ROW_EMPTY),
    half_case("attention", "y = Attention (q, k, v, m)", **_KEYS, m=_unseen(_LOWEST)),
    half_case("attention_of_truths", "y = Attention <is_causal = 1> (q, k, v, m)", **_KEYS, m=_SEEN),
    half_case("attention_causal", "y = Attention <is_causal = 1> (q, k, v)", **_KEYS),
    _attention(
        "limited_sum",
        f"{_INVERTED.format('lowest')} e = Add (m, f) u = Add (t, e) s = Max (u, lowest)",
        {"f": _unseen(_LOWEST)},
        **_LEFT,
    ),
    _attention(
        "filled_and_added",
        "u = Where (w, t, f) s = Add (u, m)",
        {"f": number(-1e9), "m": _unseen(-1e30, _PADDED)},
        w=_ROW_EMPTY,
    ),
    _attention(
        "filled_and_added_within_fp16",
        "u = Where (w, t, f) s = Add (u, m)",
        {"f": number(-1e4), "m": _unseen(-1e4, _PADDED)},
        w=_ROW_EMPTY,
    ),
    _attention(
        "filled_then_scaled", "u = Where (w, t, f) s = Mul (u, g)", {"f": number(-1e4), "g": number(8)}, w=_ROW_EMPTY
    ),
    _attention(
        "filled_then_divided", "u = Where (w, t, f) s = Div (u, g)", {"f": number(-1e4)}, w=_ROW_EMPTY, g=number(0.125)
    ),
    _attention("filled_by_what_is_given", "s = Where (w, t, f)", w=_ROW_EMPTY, f=number(-1e9)),
    _attention(
        "added_then_scaled",
        "m = Where (w, zero, f) u = Add (t, m) s = Mul (u, g)",
        {"f": number(-1e4)},
        w=_ROW_EMPTY,
        g=number(8),
    ),
    _attention(
        "added_then_transposed",
        "m = Where (w, zero, f) u = Add (t, m) b = Transpose <perm = [1, 0, 2, 3]> (u) s = Mul (b, g)",
        {"f": number(-1e4), "g": number(8)},
        "n = Softmax (s) p = Transpose <perm = [1, 0, 2, 3]> (n)",
        w=_ROW_EMPTY,
    ),
    _attention(
        "scaled_by_what_is_given",
        f"a = Cast <to = 1> (am) b = Sub (one, a) m = Mul (b, g) {_ADDED}",
        am=_ROW_EMPTY.astype(np.int64),
        g=number(-8e4),
    ),
    half_case(
        "sum_of_given",
        "e = Add (m, f) s = Add (x, e) y = Softmax (s)",
        x=noise(4, 4),
        m=_unseen(-1e30, _PADDED[0, 0]),
        f=_unseen(-1e30),
    ),
    half_case(
        "inverted_and_given",
        f"{_INVERTED.format('lowest')} e = Add (m, f) s = Add (x, e) y = Softmax (s)",
        {"f": _unseen(_LOWEST), "one": number(1), "lowest": number(_LOWEST)},
        x=noise(4, 4),
        am=_PADDED[0, 0].astype(np.int64),
    ),
    half_case(
        "attention_causal_and_given",
        "y = Attention <is_causal = 1> (q, k, v, m)",
        **_KEYS,
        m=np.broadcast_to(_unseen(-1e30, _PADDED), (2, 1, 4, 4)).copy(),
    ),
]
