"""Attention that was found in an exported decoder."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rotary:
    """A rotary embedding of queries and keys inside an operator of attention.

    Attributes:
        cosines: the table of cosines, [positions, size / 2].
        sines: the table of sines.
        num_features: how many features of a head are rotated; 0 for all.
        is_interleaved: whether pairs are neighbours.
    """

    cosines: str
    sines: str
    num_features: int
    is_interleaved: bool


@dataclass(frozen=True, slots=True)
class FoundAttention:
    """Causal attention of one layer.

    Attributes:
        output: the value that it computes, of the form of the queries.
        query: the queries: [batch, tokens, heads * size] if `is_flat`, else [batch, heads, tokens, size].
        key: the new keys.
        value: the new values.
        packed: the queries, keys and values in one value, [batch, tokens, (heads + 2 * kv heads) * size]; then `query`,
            `key` and `value` are "".
        is_flat: see `query`.
        num_heads: the heads of queries.
        scale: the factor of the scores.
        sliding_window: the tokens that a token sees; 0 for all.
        softcap: the limit of the scores; 0 for none.
        rotary: what rotates queries and keys; None if they come rotated.
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
