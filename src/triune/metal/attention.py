"""RotaryEmbedding, and the attention patterns that `graph.fused` finds."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune.metal.context import Context, Lowering, builder_of
from triune.metal.library import Value, mx

_CLOSE = 1e-4
"""The largest difference between a table and the cosines or sines of the angles that were read from it. Tables in 16
bits exceed it: just below 1 their steps are 5e-4 or more.
"""


def wavelengths(cosines: NDArray[Any], sines: NDArray[Any]) -> NDArray[np.float32] | None:
    """The number of positions over which each pair of elements is rotated by one radian, FP32 [pairs].

    Args:
        cosines: RotaryEmbedding's table of cosines [positions, pairs].
        sines: its table of sines [positions, pairs].

    Returns:
        None if the angles do not grow in proportion to the positions, or if the tables are scaled by a factor.
    """
    cosines, sines = cosines.astype(np.float64), sines.astype(np.float64)
    if cosines.ndim != 2 or len(cosines) < 2:
        return None
    last = len(cosines) - 1
    angles: NDArray[np.float64] = np.arctan2(sines[1], cosines[1])
    # Position 1 gives approximate angles. The difference between the predicted and the actual angle of the last
    # position corrects them.
    off: NDArray[np.float64] = np.arctan2(sines[last], cosines[last]) - last * angles
    angles = angles + (off - 2 * np.pi * np.round(off / (2 * np.pi))) / last
    if (angles <= 0).any():
        return None
    turned = np.arange(last + 1)[:, np.newaxis] * angles
    is_close = max(np.abs(np.cos(turned) - cosines).max(), np.abs(np.sin(turned) - sines).max()) < _CLOSE
    return (1 / angles).astype(np.float32) if is_close else None


def _rotary(c: Context) -> None:
    """Compute RotaryEmbedding of [batch, tokens, heads * size] or [batch, heads, tokens, size]."""
    x = c.input(0)
    is_flat = x.ndim == 3
    rows = x.reshape((*x.shape[:2], int(c.attributes["num_heads"]), -1)) if is_flat else mx.swapaxes(x, 1, 2)
    if is_flat and x.shape[1] == 1 and c.has(3):
        c.give(turned(c, rows[:, 0]).reshape(x.shape))
        return
    found = _by_tables(c, rows)
    c.give(found.reshape(x.shape) if is_flat else mx.swapaxes(found, 1, 2))


def turned(c: Context, x: Value) -> Value:
    """Rotate heads [tokens, heads, size] by the angles of their positions. The node has inputs 1 to 3 and the
    attributes `interleaved` and `rotary_embedding_dim` of RotaryEmbedding.
    """
    lengths = builder_of(c).wavelengths.get(c.node.input[1])
    if lengths is None:
        return _by_tables(c, x[:, None])[:, 0]
    found = mx.fast.rope(
        x[:, :, None],
        2 * lengths.shape[0],
        traditional=bool(c.attributes.get("interleaved", 0)),
        base=None,
        scale=1.0,
        offset=c.input(3).reshape(-1),
        freqs=lengths,
    )
    return found[:, :, 0]


def _by_tables(c: Context, rows: Value) -> Value:
    """Rotate pairs of elements of `rows` [batch, tokens, heads, size] by angles. Inputs 1 and 2 of the node are the
    cosines and sines of the angles.
    """
    cosines, sines = c.input(1), c.input(2)
    if c.has(3):
        positions = mx.clip(c.input(3), 0, cosines.shape[0] - 1)
        cosines, sines = (mx.take(each, positions, 0) for each in (cosines, sines))
    # All heads share the tables, so the shape becomes [batch, tokens, 1, pairs].
    cosines, sines = (mx.expand_dims(each, 2) for each in (cosines, sines))
    part = int(c.attributes.get("rotary_embedding_dim", 0)) or rows.shape[-1]
    first, rest = rows[..., :part], rows[..., part:]
    if c.attributes.get("interleaved", 0):
        one, other = first[..., 0::2], first[..., 1::2]
    else:
        one, other = first[..., : part // 2], first[..., part // 2 :]
    real, imaginary = one * cosines - other * sines, one * sines + other * cosines
    if c.attributes.get("interleaved", 0):
        found = mx.stack([real, imaginary], axis=-1).reshape(first.shape)
    else:
        found = mx.concatenate([real, imaginary], axis=-1)
    found = found.astype(rows.dtype)
    return mx.concatenate([found, rest], axis=-1) if rest.shape[-1] else found


def fused_attention(c: Context) -> None:
    """Compute the pattern `scaled_dot_product_attention` of `graph.fused`.

    Its inputs are query, key, value, and perhaps a mask that is added to the scores.
    """
    query, key, value = (c.input(index) for index in range(3))
    mask = None
    if c.has(3):
        # A row whose mask is -infinity everywhere would give NaN, so the mask is limited to the lowest finite number.
        mask = mx.maximum(c.input(3), mx.finfo(query.dtype).min).astype(query.dtype)
        mask = mask.reshape((*[1] * (4 - mask.ndim), *mask.shape))
    scale = float(c.attributes["scale"])
    c.give(mx.fast.scaled_dot_product_attention(query, key, value, scale=scale, mask=mask))


TABLE: Mapping[str, Lowering] = {"RotaryEmbedding": _rotary}
