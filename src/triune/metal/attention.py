"""RotaryEmbedding, and attention where `graph.fused` finds it."""

from collections.abc import Mapping

from triune.metal.context import Context, Lowering
from triune.metal.library import mx


def _rotary(c: Context) -> None:
    """RotaryEmbedding of [batch, tokens, heads * size] or [batch, heads, tokens, size], in the tables' type."""
    x = c.input(0)
    is_flat = x.ndim == 3
    rows = x.reshape((*x.shape[:2], int(c.attributes["num_heads"]), -1)) if is_flat else mx.swapaxes(x, 1, 2)
    cosines, sines = c.input(1), c.input(2)
    if c.has(3):
        positions = mx.clip(c.input(3), 0, cosines.shape[0] - 1)
        cosines, sines = (mx.take(each, positions, 0) for each in (cosines, sines))
    # The same for all heads: now they are of the shape batch, tokens, 1, half of the size.
    cosines, sines = (mx.expand_dims(each, 2) for each in (cosines, sines))
    part = int(c.attributes.get("rotary_embedding_dim", 0)) or rows.shape[-1]
    turned, rest = rows[..., :part], rows[..., part:]
    if c.attributes.get("interleaved", 0):
        one, other = turned[..., 0::2], turned[..., 1::2]
    else:
        one, other = turned[..., : part // 2], turned[..., part // 2 :]
    real, imaginary = one * cosines - other * sines, one * sines + other * cosines
    if c.attributes.get("interleaved", 0):
        found = mx.stack([real, imaginary], axis=-1).reshape(turned.shape)
    else:
        found = mx.concatenate([real, imaginary], axis=-1)
    found = mx.concatenate([found.astype(x.dtype), rest], axis=-1) if rest.shape[-1] else found.astype(x.dtype)
    c.give(found.reshape(x.shape) if is_flat else mx.swapaxes(found, 1, 2))


def fused_attention(c: Context) -> None:
    """The pattern `scaled_dot_product_attention` of `graph.fused`: query, key, value, and a mask that is added."""
    query, key, value = (c.input(index) for index in range(3))
    mask = None
    if c.has(3):
        # Not infinite in 16 bits, either: a row in which all is masked would be of no number.
        mask = mx.maximum(c.input(3), mx.finfo(query.dtype).min).astype(query.dtype)
        mask = mask.reshape((*[1] * (4 - mask.ndim), *mask.shape))
    scale = float(c.attributes["scale"])
    c.give(mx.fast.scaled_dot_product_attention(query, key, value, scale=scale, mask=mask))


TABLE: Mapping[str, Lowering] = {"RotaryEmbedding": _rotary}
