"""Attention that was found in an exported decoder."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rotary:
    """A rotary embedding of queries and keys inside an operator of attention.

    Attributes:
        cosines: the table of cosines, [positions, size / 2].
        sines: the table of sines.
        num_features: how many features of a head are rotated; 0 for all.
        is_interleaved: whether the two elements of a pair are adjacent.
    """

    cosines: str
    sines: str
    num_features: int
    is_interleaved: bool


@dataclass(frozen=True, slots=True)
class FoundAttention:
    """Causal attention of one layer.

    Attributes:
        output: the value that the attention computes, in the layout of `query`.
        query: the queries: [batch, tokens, heads * size] if `is_flat`, else [batch, heads, tokens, size].
        key: the new keys.
        value: the new values.
        packed: the value that has queries, keys and values together, [batch, tokens, (heads + 2 * kv heads) * size];
            then `query`, `key` and `value` are "".
        is_flat: whether queries, keys, values and the output are [batch, tokens, heads * size].
        num_heads: the number of heads of queries.
        scale: the factor of the scores.
        sliding_window: the number of tokens that a token attends to; 0 means all.
        softcap: the soft cap of the scores; 0 for none.
        rotary: the rotary embedding of queries and keys; None if they are rotated already.
    """

    output: str
    query: str
    key: str
    value: str
    packed: str
    is_flat: bool
    num_heads: int
    scale: float
    sliding_window: int = 0
    softcap: float = 0.0
    rotary: Rotary | None = None
