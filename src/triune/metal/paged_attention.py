"""`triune::PagedAttention` in MLX, over caches of whole layers: [blocks, keys and values, heads, block size, size].

The sequences of a step are computed in groups with similar numbers of new tokens. Indices and masks are computed once
for all layers. Each layer writes its keys and values by one operation, and reads them by another.
A step of one new token of each sequence can be one kernel a layer (`kernels.attention`).
"""

from typing import Any

from triune.core.decoder import CacheType
from triune.graph.paged_attention import BIAS_INPUT
from triune.metal.attention import turned
from triune.metal.context import Context
from triune.metal.kernels.attention import Angles, Heads, attend
from triune.metal.library import Value, fused, mx
from triune.metal.paged_layout import Group, Layout

_CACHE_INPUT = 3
"""The index, among the inputs of a node `PagedAttention`, of the layer's cache of keys and values."""

_PART = 6
"""After each group of this many layers, the operations described so far are handed to the GPU."""


class CacheForm:
    """How the cache stores keys and values: as floats, or as int8 followed by an fp32 scale for each token and head."""

    def __init__(self, cache_type: CacheType) -> None:
        kinds = {"fp32": mx.float32, "fp16": mx.float16, "bf16": mx.bfloat16, "int8": mx.int8}
        self.kind = kinds[cache_type]
        self.extra = 4 if cache_type == "int8" else 0

    def kept(self, x: Value) -> Value:
        """Convert `x` [..., size] to the form of the cache: [..., size], or for int8 [..., size + 4], with the bytes of
        the scale at the end.
        """
        if not self.extra:
            return x.astype(self.kind)
        wide = x.astype(mx.float32)
        scale = mx.maximum(mx.max(mx.abs(wide), axis=-1, keepdims=True) / 127, 1e-30)
        return mx.concatenate([mx.round(wide / scale).astype(mx.int8), scale.view(mx.int8)], axis=-1)

    def numbers(self, x: Value, kind: Any) -> Value:
        """Convert stored keys or values (the result of `kept`) back to numbers of the floating-point type `kind`."""
        if not self.extra:
            return x.astype(kind)
        scale = mx.contiguous(x[..., -self.extra :]).view(mx.float32)
        return (x[..., : -self.extra].astype(mx.float32) * scale).astype(kind)


@fused
def joined(key: Value, value: Value, is_key: Value, broken: Value) -> Value:
    """Elements of `key` where `is_key` is true, else of `value`. Where the element of `value` is NaN or infinite, the
    result has the element of `broken` in any case.
    """
    return mx.where(mx.isfinite(value), mx.where(is_key, key, value), broken)


class PagedAttention:
    """Computes PagedAttention and `RotaryAttention` (see `fusion`) for a step whose layout was set by `begin`.

    In the graph, the value for a layer's cache of keys holds both keys and values: [rows, size]. For each block, it has
    a row for each token of each head of the keys, then of the values.
    """

    def __init__(self, form: CacheForm, block_size: int) -> None:
        self._form, self._block_size = form, block_size
        self._layout: Layout | None = None
        self._made: dict[tuple[Any, ...], Any] = {}
        self._done = 0
        self._parts: list[Value] = []
        self._parts_before: list[Value] = []
        self._is_settled = True

    def begin(self, layout: Layout | None) -> None:
        """Set the layout of the step that is described next. None means a step of one token of each sequence by
        Triune's own kernel, which reads the values `past.0` and `table.0` of a layout with one group.
        """
        self._layout, self._made, self._done = layout, {}, 0
        self._parts_before, self._parts = self._parts, []

    def compute_whole(self, result: Value) -> None:
        """Start to compute a whole step, for which `begin(None)` was called. `result` is its last value."""
        mx.async_eval(result)
        self._parts, self._is_settled = [], False

    def settle(self) -> None:
        """Wait until no running step of Triune's own kernel uses the caches. MLX would copy a cache that is in use
        before it writes to it.
        """
        if not self._is_settled:
            mx.synchronize()
            self._is_settled = True

    def compute(self, result: Value, *caches: Value) -> None:
        """Start to compute on the GPU the operations described so far. They are one part of the step, and `result` is
        its last value.

        MLX writes a cache in place only if no other operation uses its memory, and an operation that reads it uses it
        until it has finished; otherwise MLX copies the whole cache. So before part i begins, this waits until the
        previous step has finished its part i + 1, or its last part.
        """
        self.settle()
        place = len(self._parts)
        if self._parts_before:
            mx.eval(self._parts_before[min(place + 1, len(self._parts_before) - 1)])
        mx.async_eval(result, *caches)
        self._parts.append(result)

    def end(self) -> None:
        """Drop the arrays of the current step."""
        self._layout, self._made = None, {}

    def attention(self, c: Context) -> None:
        """Compute a node `PagedAttention`. The arrays of the step's layout are read from the graph's values in
        `c.scope`, by their names, such as "slots".
        """
        heads, kv_heads = int(c.attributes["num_heads"]), int(c.attributes["num_kv_heads"])
        flat = c.input(0), c.input(1), c.input(2)
        if self._layout is None:
            self._attend_once(c, mx.concatenate(flat, axis=1), None, cache=_CACHE_INPUT)
            return
        query, key, value = (
            each.reshape((each.shape[0], number, -1))
            for each, number in zip(flat, (heads, kv_heads, kv_heads), strict=True)
        )
        self._attend(c, query, key, value, cache=_CACHE_INPUT)

    def rotary_attention(self, c: Context) -> None:
        """Compute a node `RotaryAttention` (see `fusion`)."""
        heads, kv_heads = int(c.attributes["num_heads"]), int(c.attributes["num_kv_heads"])
        x = c.input(0)
        if self._layout is None:
            cosines, sines = (c.input(place).astype(mx.float32) for place in (1, 2))
            positions = c.input(3).reshape(-1).astype(mx.int32)
            turn = Angles(cosines, sines, positions, is_interleaved=bool(c.attributes.get("interleaved", 0)))
            self._attend_once(c, x, turn, cache=4)
            return
        x = x.reshape((x.shape[0], heads + 2 * kv_heads, -1))
        # The values are rotated too, though that result is not read. To leave them out, the other heads would have to
        # be copied first.
        found = turned(c, x)
        self._attend(c, found[:, :heads], found[:, heads : heads + kv_heads], x[:, heads + kv_heads :], cache=4)

    def _attend_once(self, c: Context, qkv: Value, angles: Angles | None, *, cache: int) -> None:
        """Compute the same as `_attend` for one token of each sequence, by Triune's own kernel. `qkv` has all heads
        side by side.
        """
        num, num_kv = int(c.attributes["num_heads"]), int(c.attributes["num_kv_heads"])
        rows = c.input(cache)
        size = rows.shape[-1]
        heads = Heads(
            num,
            num_kv,
            size,
            scale=float(c.attributes.get("scale", 0.0)) or size**-0.5,
            window=int(c.attributes.get("sliding_window", 0)),
            cap=float(c.attributes.get("softcap", 0.0)),
        )
        past, table = c.scope.value("past.0"), c.scope.value("table.0")
        c.give(attend(heads, qkv, rows, self._block_size, past, table, angles))
        for place in (1, 2):
            c.give(rows, place)

    def _attend(self, c: Context, query: Value, key: Value, value: Value, *, cache: int) -> None:
        """Write keys and values [tokens, kv heads, size] to the cache, and compute the attention of queries [tokens,
        heads, size] over it.
        """
        layout = self._layout
        assert layout is not None
        kv_heads, size = key.shape[1:]
        new = self._joined(key, value)
        rows = c.input(cache)
        rows[self._rows(c, kv_heads)] = self._form.kept(new.reshape((-1, 2 * kv_heads, size)))
        scale = float(c.attributes.get("scale", 0.0)) or size**-0.5
        window, cap = int(c.attributes.get("sliding_window", 0)), float(c.attributes.get("softcap", 0.0))
        bias = BIAS_INPUT if cache == _CACHE_INPUT and c.has(BIAS_INPUT) else None
        found: list[Value] = []
        for index, group in enumerate(layout.groups):
            tokens = None if layout.is_in_order else c.scope.value(f"rows.{index}")
            if group.blocks:
                blocks = rows.reshape((-1, self._block_size, rows.shape[-1]))
                read = mx.take(blocks, self._blocks(c, index, kv_heads), 0)
                both = self._form.numbers(read, query.dtype).reshape((2 * group.count, kv_heads, -1, size))
                num_keys = both.shape[2]
            else:
                own = _grouped(new, group, tokens)
                both = mx.transpose(own, (2, 0, 3, 1, 4)).reshape((2 * group.count, kv_heads, group.tokens, size))
                num_keys = group.tokens
            first, last = 0, num_keys
            if bias is None and group.length and (group.tokens == 1 or not 0 < window < group.length):
                first, last = max(group.length - window, 0) if window else 0, group.length
                mask = None if group.tokens == 1 else "causal"
            else:
                mask = self._mask(c, index, group, window, num_keys, bias)
            keys, values = both[: group.count, :, first:last], both[group.count :, :, first:last]
            found.append(_attended(_grouped(query, group, tokens), keys, values, scale=scale, mask=mask, cap=cap))
        whole = found[0] if len(found) == 1 else mx.concatenate(found)
        c.give(whole if layout.is_in_order else mx.take(whole, c.scope.value("back"), 0))
        for place in (1, 2):
            c.give(rows, place)
        self._done += 1
        if self._done % _PART == 0:
            # Hand these layers to the GPU, so that it computes while this thread still describes the following ones.
            self.compute(whole)

    def _joined(self, key: Value, value: Value) -> Value:
        """Keys and values [tokens, heads, size] as one array [tokens, 2, heads, size].

        A value that is NaN or infinite would reach other sequences, since a mask multiplies it by 0. So it becomes 0,
        and its key becomes NaN, which reaches no other sequence.
        """
        if ("joined",) not in self._made:
            is_key = mx.array([[[True]], [[False]]])
            self._made["joined",] = is_key, mx.array([[[mx.nan]], [[0.0]]], dtype=value.dtype)
        return joined(key[:, None], value[:, None], *self._made["joined",])

    def _rows(self, c: Context, kv_heads: int) -> Value:
        """The rows of a cache that the step writes, INT32 [tokens, 2 * kv heads]."""
        key = "rows", kv_heads
        if key not in self._made:
            slots, size = c.scope.value("slots")[:, None], self._block_size
            first = slots // size * (2 * kv_heads * size) + slots % size
            self._made[key] = first + mx.arange(2 * kv_heads, dtype=mx.int32) * size
        return self._made[key]

    def _blocks(self, c: Context, index: int, kv_heads: int) -> Value:
        """The indices of the parts of the cache that the sequences of group `index` read, INT32 [2 (keys, values),
        sequences, kv heads, blocks]: each part has the keys or the values of one head in one block.
        """
        key = "blocks", index, kv_heads
        if key not in self._made:
            table = c.scope.value(f"table.{index}")[:, None] * (2 * kv_heads)
            self._made[key] = table + mx.arange(2 * kv_heads, dtype=mx.int32).reshape((2, 1, kv_heads, 1))
        return self._made[key]

    def _mask(self, c: Context, index: int, group: Group, window: int, num_keys: int, bias: int | None) -> Value | str:
        """The mask of a group's attention, which is the same for all layers.

        Returns:
            "causal", or BOOL [sequences, 1, tokens, keys]: whether each new token attends to a key. If the node has the
            input `bias`, the mask is instead the numbers to add to the scores, [sequences, heads, tokens, keys].
        """
        if bias is None and not group.blocks and (not window or window >= group.tokens):
            return "causal"
        key = "mask", index, window, None if bias is None else c.node.input[bias]
        if key not in self._made:
            past = c.scope.value(f"past.{index}").reshape((-1, 1, 1, 1))
            # The keys' positions start at 0, whether the keys are in the cache or new.
            queries = past + mx.arange(group.tokens)[:, None]
            keys = mx.arange(num_keys)
            seen = keys <= queries
            seen = seen & (keys > queries - window) if window else seen
            self._made[key] = seen if bias is None else _added(c.input(bias), queries - keys, seen)
        return self._made[key]


def _added(bias: Value, distances: Value, seen: Value) -> Value:
    """The mask with bias for the scores, [sequences, heads, tokens, keys]: the bias if the query sees the key, else
    -inf.

    Args:
        bias: [heads, distances], see `graph.paged_attention`.
        distances: how many positions each key precedes each query, [sequences, 1, tokens, keys].
        seen: whether the query attends to the key, in the same shape.
    """
    limited = mx.clip(distances[:, 0], 0, bias.shape[1] - 1)
    by_heads = mx.swapaxes(mx.take(bias, limited, axis=1), 0, 1)
    return mx.where(seen, by_heads, mx.array(-mx.inf, dtype=bias.dtype))


def _grouped(x: Value, group: Group, rows: Value | None) -> Value:
    """Select the tokens of a group from `x` [all tokens of the step, ...]: the result is [sequences of the group,
    largest number of their new tokens, ...]. `rows` are the indices of these tokens in `x`; with None, `x` has only
    these, in order.
    """
    found = x if rows is None else mx.take(x, rows.reshape(-1), 0)
    return found.reshape((group.count, group.tokens, *x.shape[1:]))


def _attended(query: Value, key: Value, value: Value, *, scale: float, mask: Value | str | None, cap: float) -> Value:
    """Attention of queries [sequences, tokens, heads, size] over keys and values [sequences, kv heads, keys, size].

    With a cap, scores become cap * tanh(score / cap), which MLX's own function does not support. `mask` is BOOL
    [sequences, 1, tokens, keys], floats [sequences, heads, tokens, keys] that are added to the scores, "causal", or
    None if no key is masked.

    Returns:
        [sequences * tokens, heads * size]
    """
    count, tokens, heads, size = query.shape
    # For one token a reshape does what swapping the axes would: [tokens, heads] and [heads, tokens] have the same order
    # in memory.
    query = query.reshape((count, heads, 1, size)) if tokens == 1 else mx.swapaxes(query, 1, 2)
    if cap:
        found = _capped(query, key, value, scale=scale, mask=mask, cap=cap)
    else:
        found = mx.fast.scaled_dot_product_attention(query, key, value, scale=scale, mask=mask)
    return (found if tokens == 1 else mx.swapaxes(found, 1, 2)).reshape((count * tokens, -1))


def _capped(query: Value, key: Value, value: Value, *, scale: float, mask: Value | str | None, cap: float) -> Value:
    count, heads, tokens, size = query.shape
    grouped = query.reshape((count, key.shape[1], -1, tokens, size))
    scores = mx.matmul(grouped, mx.swapaxes(key, 2, 3)[:, :, None]).astype(mx.float32) * scale
    scores = cap * mx.tanh(scores / cap)
    if mask is not None and not isinstance(mask, str) and mask.dtype != mx.bool_:
        scores = scores + mask.reshape(scores.shape)
    elif mask is not None:
        places = mx.arange(key.shape[2])
        seen = places <= places[-tokens:, None] if isinstance(mask, str) else mask[:, :, None]
        scores = mx.where(seen, scores, -mx.inf)
    weights = mx.softmax(scores, axis=-1).astype(value.dtype)
    return mx.matmul(weights, value[:, :, None]).reshape((count, heads, tokens, size))
