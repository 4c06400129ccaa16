"""`triune::PagedAttention` in MLX, over caches whose blocks are [block size, heads, size].

Sequences of a step are computed in groups of about as many new tokens each. Groups are padded, so that a function which
MLX compiled for their shapes serves many steps. A cache has one more block than are counted: padding is written there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune.core.decoder import CacheType, DecoderStep
from triune.metal.context import Context
from triune.metal.library import Value, mx

Round = Callable[[int], int]
"""The size to which a size is padded."""


def coarse(size: int) -> int:
    """The next of 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, ...: four to each power of two."""
    step = max(1 << (max(size - 1, 1).bit_length() - 3), 1) if size > 4 else 1
    return -(-size // step) * step


@dataclass(frozen=True, slots=True)
class Group:
    """Sequences that are computed together: what is known when a function is compiled.

    Attributes:
        count: the sequences.
        tokens: the new tokens of each.
        blocks: the blocks of each; 0 if none has tokens in the cache, so that only new tokens are seen.
    """

    count: int
    tokens: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Layout:
    """A step in groups.

    Attributes:
        groups: the groups. A function is compiled for equal groups and shapes of `arrays`.
        arrays: by name: `slots` INT32 [tokens], where the tokens' keys and values are written, counted in tokens from
            the first block; `back` INT32 [tokens], each token's place among those of all groups; for group N `rows.N`
            INT32 [count, tokens], the step's tokens, `past.N` INT32 [count], tokens in the cache, and `table.N` INT32
            [count, blocks].
        is_in_order: whether the tokens of the only group are those of the step.
    """

    groups: tuple[Group, ...]
    arrays: Mapping[str, NDArray[np.int32]]
    is_in_order: bool


def layout_of(step: DecoderStep, block_size: int, num_blocks: int, size_of: Round) -> Layout:
    """Arrange a step, which fits the cache, in groups.

    Args:
        step: the step.
        block_size: the tokens of a block.
        num_blocks: the blocks that are counted.
        size_of: how sizes are padded.
    """
    new, begins = np.diff(step.subsequence_begins), step.subsequence_begins
    members: dict[tuple[int, bool], list[int]] = {}
    for which in np.flatnonzero(new).tolist():
        members.setdefault((size_of(int(new[which])), step.past_lengths[which] == 0 < new[which] - 1), []).append(which)
    num_tokens = len(step.input_ids)
    groups: list[Group] = []
    arrays: dict[str, NDArray[np.int32]] = {}
    back, place = np.zeros(num_tokens, np.int32), 0
    for index, ((tokens, is_fresh), sequences) in enumerate(members.items()):
        count = size_of(len(sequences))
        held = [(int(step.past_lengths[each] + new[each]) + block_size - 1) // block_size for each in sequences]
        blocks = 0 if is_fresh else size_of(max(held))
        rows, past = np.zeros((count, tokens), np.int32), np.zeros(count, np.int32)
        table = np.full((count, blocks), num_blocks, np.int32)
        for row, (which, used) in enumerate(zip(sequences, held, strict=True)):
            own = np.arange(begins[which], begins[which + 1], dtype=np.int32)
            rows[row, : len(own)], past[row] = own, step.past_lengths[which]
            back[own] = place + row * tokens + np.arange(len(own))
            if blocks:
                first = step.block_indices_begins[which]
                table[row, :used] = step.block_indices[first : first + used]
        groups.append(Group(count, tokens, blocks))
        arrays |= {f"rows.{index}": rows, f"past.{index}": past, f"table.{index}": table}
        place += count * tokens
    padded = groups[0].count * groups[0].tokens if len(groups) == 1 else size_of(num_tokens)
    is_in_order = len(groups) == 1 and bool((back == np.arange(num_tokens)).all())
    slots = np.full(padded, num_blocks * block_size, np.int32)
    slots[:num_tokens] = _slots(step, new, block_size)
    arrays |= {"slots": slots, "back": np.concatenate([back, np.zeros(padded - num_tokens, np.int32)])}
    return Layout(tuple(groups), arrays, is_in_order)


def _slots(step: DecoderStep, new: NDArray[np.int32], block_size: int) -> NDArray[np.int32]:
    """Where each token of a step is written."""
    within = np.arange(len(step.input_ids)) - np.repeat(step.subsequence_begins[:-1], new)
    positions = np.repeat(step.past_lengths, new) + within
    blocks = step.block_indices[np.repeat(step.block_indices_begins[:-1], new) + positions // block_size]
    return (blocks * block_size + positions % block_size).astype(np.int32)


class CacheForm:
    """How keys and values are kept: as floats, or as bytes with an fp32 scale for each token and head behind them."""

    def __init__(self, cache_type: CacheType) -> None:
        kinds = {"fp32": mx.float32, "fp16": mx.float16, "bf16": mx.bfloat16, "int8": mx.int8}
        self.kind = kinds[cache_type]
        self.extra = 4 if cache_type == "int8" else 0

    def kept(self, x: Value) -> Value:
        """[..., size] in the form of the cache: [..., size + extra]."""
        if not self.extra:
            return x.astype(self.kind)
        wide = x.astype(mx.float32)
        scale = mx.maximum(mx.max(mx.abs(wide), axis=-1, keepdims=True) / 127, 1e-30)
        return mx.concatenate([mx.round(wide / scale).astype(mx.int8), scale.view(mx.int8)], axis=-1)

    def numbers(self, x: Value, kind: Any) -> Value:
        """The inverse of `kept`, in a type of floats."""
        if not self.extra:
            return x.astype(kind)
        scale = mx.contiguous(x[..., -self.extra :]).view(mx.float32)
        return (x[..., : -self.extra].astype(mx.float32) * scale).astype(kind)


class PagedAttention:
    """Computes the operator for a step whose layout is set before."""

    def __init__(self, form: CacheForm) -> None:
        self._form = form
        self._layout: Layout | None = None
        self._seen: dict[tuple[int, int], Value] = {}

    def begin(self, layout: Layout) -> None:
        """Set the layout of the step that is computed, or compiled, next."""
        self._layout, self._seen = layout, {}

    def __call__(self, c: Context) -> None:
        """Compute a node. The arrays of the layout are values of the graph, by their names."""
        layout = self._layout
        assert layout is not None
        heads, kv_heads = int(c.attributes["num_heads"]), int(c.attributes["num_kv_heads"])
        flat = c.input(0), c.input(1), c.input(2)
        query, key, value = (
            each.reshape((each.shape[0], number, -1))
            for each, number in zip(flat, (heads, kv_heads, kv_heads), strict=True)
        )
        # A value of no number would reach other sequences: in a mask it is multiplied by 0. In a key it reaches none.
        is_sound = mx.isfinite(value)
        kept_key = mx.where(is_sound, key, mx.array(mx.nan, dtype=key.dtype))
        kept_value = mx.where(is_sound, value, mx.array(0, dtype=value.dtype))
        slots = c.scope.value("slots")
        caches = [
            _written(c.input(place), slots, self._form.kept(each)) for place, each in ((3, kept_key), (4, kept_value))
        ]
        scale = float(c.attributes.get("scale", 0.0)) or query.shape[-1] ** -0.5
        found: list[Value] = []
        for index, group in enumerate(layout.groups):
            rows = None if layout.is_in_order else c.scope.value(f"rows.{index}")
            queries = _grouped(query, group, rows)
            if group.blocks:
                table = c.scope.value(f"table.{index}")
                keys, values = (
                    self._form.numbers(mx.take(cache, table, 0), query.dtype).reshape(
                        (group.count, -1, kv_heads, query.shape[-1])
                    )
                    for cache in caches
                )
            else:
                keys, values = (_grouped(each, group, rows) for each in (kept_key, kept_value))
            mask = self._mask(c, index, group, int(c.attributes.get("sliding_window", 0)))
            operands = (mx.swapaxes(each, 1, 2) for each in (queries, keys, values))
            attended = _attended(*operands, scale=scale, mask=mask, cap=float(c.attributes.get("softcap", 0.0)))
            found.append(mx.swapaxes(attended, 1, 2).reshape((group.count * group.tokens, -1)))
        whole = found[0] if len(found) == 1 else mx.concatenate(found)
        c.give(whole if layout.is_in_order else mx.take(whole, c.scope.value("back"), 0))
        for index, cache in enumerate(caches, start=1):
            c.give(cache, index)

    def _mask(self, c: Context, index: int, group: Group, window: int) -> Value | str:
        """Which keys each new token of a group sees, BOOL [count, 1, tokens, keys]; the same for all layers."""
        if not group.blocks and (not window or window >= group.tokens):
            return "causal"
        if (index, window) not in self._seen:
            past = c.scope.value(f"past.{index}").reshape((-1, 1, 1, 1))
            # The first position of the keys is 0, be they in the cache or new.
            queries = past + mx.arange(group.tokens)[:, None]
            keys = mx.arange(self._num_keys(c, index, group))
            seen = keys <= queries
            self._seen[index, window] = seen & (keys > queries - window) if window else seen
        return self._seen[index, window]

    def _num_keys(self, c: Context, index: int, group: Group) -> int:
        return group.blocks * c.input(3).shape[1] if group.blocks else group.tokens


def _written(cache: Value, slots: Value, new: Value) -> Value:
    """A cache with new tokens; MLX writes them in place if nobody else has the cache."""
    flat = cache.reshape((-1, *cache.shape[2:]))
    flat[slots] = new
    return flat.reshape(cache.shape)


def _grouped(x: Value, group: Group, rows: Value | None) -> Value:
    """The tokens [tokens, heads, size] of a group: [count, tokens, heads, size]."""
    found = x if rows is None else mx.take(x, rows.reshape(-1), 0)
    return found.reshape((group.count, group.tokens, *x.shape[1:]))


def _attended(query: Value, key: Value, value: Value, *, scale: float, mask: Value, cap: float) -> Value:
    """Attention of [count, heads, tokens, size] over [count, kv heads, keys, size].

    With a cap, scores become cap * tanh(score / cap), which MLX's own function does not have. `mask` is BOOL [count, 1,
    tokens, keys] or "causal".
    """
    if not cap:
        return mx.fast.scaled_dot_product_attention(query, key, value, scale=scale, mask=mask)
    count, heads, tokens, size = query.shape
    seen = mask if isinstance(mask, mx.array) else mx.arange(tokens) <= mx.arange(tokens)[:, None]
    grouped = query.reshape((count, key.shape[1], -1, tokens, size))
    scores = mx.matmul(grouped, mx.swapaxes(key, 2, 3)[:, :, None]).astype(mx.float32) * scale
    scores = mx.where(mx.expand_dims(seen, -3), cap * mx.tanh(scores / cap), -mx.inf)
    weights = mx.softmax(scores, axis=-1).astype(value.dtype)
    return mx.matmul(weights, value[:, :, None]).reshape((count, heads, tokens, size))
