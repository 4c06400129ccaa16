"""The form of a decoder's graph for one sequence with a cache of a fixed size, which is an input and an output of the
graph.

All sizes are fixed, and the host computes what depends on lengths: the Neural Engine has neither free sizes nor
integers, and cannot write at a computed position. So a token's keys and values are put into the cache by products with
0 and 1, and masks are inputs, as in Apple's "On Device Llama 3.1 with Core ML" (2024).
"""

from collections.abc import Sequence
from typing import Final

from onnx import TensorProto

from triune.core.errors import UnsupportedError
from triune.core.explicit_cache import ExplicitSize, cache_names, new_name, visible_name
from triune.engine.models.builder import ModelBuilder
from triune.engine.weights.config import Rope

HIDDEN: Final = -30_000.0
"""The number that is added to the scores of masked keys. The sum with a score stays within fp16, and exp(-30000) is
0.
"""


class Explicit:
    """The `Form` for new tokens of one sequence, over a cache of keys and values of a fixed size.

    Inputs, with C for `size.context`, the tokens that the cache can hold, and N for `size.tokens`, the tokens of a
    call:
        `input_ids`, `position_ids`: INT64 [1, N].
        `placement`: FP32 [1, C, N], 1 where the new token n is put at the place c of the cache, else 0. A token that
            is only padding has no place.
        `visible`: FP32 [1, 1, N, C], 1 where the new token n sees the key at c, else 0. Layers with a sliding window of
            w tokens have `visible_w`.
        `wanted`: FP32 [1, 1, N], 1 for the token whose logits are wanted, else 0; only if N > 1.
        for each layer L: `key_cache_L` FP32 [1, C, heads * size], `value_cache_L` FP32 [1, heads * size, C].
    Outputs: `logits` FP32 [1, 1, vocabulary]; `key_cache_L_new`, `value_cache_L_new`.

    Keys and values have the layouts that products in the Neural Engine's layout read without a transpose
    (`graph.ane.split_heads`).
    """

    def __init__(self, graph: ModelBuilder, num_positions: int, size: ExplicitSize) -> None:
        self._graph = graph
        self._num_positions = num_positions
        self._size = size
        self.ids = graph.input("input_ids", TensorProto.INT64, 1, size.tokens)
        self._positions = graph.input("position_ids", TensorProto.INT64, 1, size.tokens)
        self._placement = self._choice("placement", 1, size.context, size.tokens)
        self._masks: dict[int, str] = {}
        self._wanted = "" if size.tokens == 1 else self._choice("wanted", 1, 1, size.tokens)
        taken = self._placement
        if size.tokens > 1:
            taken = graph.op("ReduceSum", taken, graph.ints(2), keepdims=1)
        self._kept = graph.op("Sub", graph.scalar(1), taken)
        self._turned = [graph.op("Transpose", each, perm=[0, 2, 1]) for each in (self._placement, self._kept)]
        self._outputs: list[tuple[str, tuple[int, ...]]] = []

    def positions(self) -> str:
        """Implements `Form.positions`."""
        return self._positions

    def split_heads(self, x: str, num_heads: int, head_size: int) -> str:
        """Implements `Form.split_heads`."""
        return self._graph.op("Reshape", x, self._graph.ints(0, 0, num_heads, head_size))

    def join_heads(self, x: str) -> str:
        """Implements `Form.join_heads`."""
        return self._graph.op("Reshape", x, self._graph.ints(0, 0, -1))

    def rotate(self, x: str, num_heads: int, head_size: int, rope: Rope) -> str:
        """Apply rotary position embedding: see `Form.rotate`. The rows of the tables are gathered once for all
        layers.
        """
        graph = self._graph
        names = [f"{kind} {rope}" for kind in ("cosines", "sines")]
        if not graph.has_table(names[0]):
            for name, table in zip(names, rope.tables(self._num_positions), strict=True):
                graph.put("Gather", [graph.table(name, table), self._positions], [f"{name} of tokens"])
        part = rope.rotary_dim if rope.rotary_dim != head_size else 0
        rows = [f"{name} of tokens" for name in names]
        return graph.op("RotaryEmbedding", x, *rows, num_heads=num_heads, rotary_embedding_dim=part)

    def attend(
        self,
        query: str,
        key: str,
        value: str,
        *,
        num_heads: int,
        num_kv_heads: int,
        head_size: int,
        scale: float,
        sliding_window: int = 0,
        softcap: float = 0.0,
        distance_bias: str = "",
    ) -> str:
        """Implements `Form.attend`."""
        if distance_bias:
            raise UnsupportedError(
                "attention with a bias of distances (T5) is not written with an explicit cache: take the paged form"
            )
        graph, size, layer = self._graph, self._size, len(self._outputs) // 2
        width, times = num_kv_heads * head_size, num_heads // num_kv_heads
        value = graph.op("Transpose", value, perm=[0, 2, 1])
        placement, kept = self._turned
        key_name, value_name = cache_names(layer)
        keys = self._updated(key_name, (1, size.context, width), self._kept, self._placement, key)
        values = self._updated(value_name, (1, width, size.context), kept, value, placement)
        query = self._by_heads(graph.op("Mul", query, graph.scalar(scale)), num_heads, [0, 2, 1, 3])
        keys = self._by_heads(keys, num_kv_heads, [0, 2, 3, 1])
        keys = self._repeated(keys, times, 1, num_heads, head_size, size.context)
        values = self._by_heads(graph.op("Transpose", values, perm=[0, 2, 1]), num_kv_heads, [0, 2, 1, 3])
        values = self._repeated(values, times, 1, num_heads, size.context, head_size)
        scores = graph.softcap(graph.op("MatMul", query, keys), softcap)
        shares = graph.op("Softmax", graph.op("Add", scores, self._mask(sliding_window)), axis=-1)
        mixed = graph.op("Transpose", graph.op("MatMul", shares, values), perm=[0, 2, 1, 3])
        return graph.op("Reshape", mixed, graph.ints(0, 0, -1))

    def wanted(self, hidden: str) -> str:
        """Implements `Form.wanted`."""
        return self._graph.op("MatMul", self._wanted, hidden) if self._wanted else hidden

    def put_logits(self, logits: str, vocab_size: int) -> None:
        """Implements `Form.put_logits`."""
        self._graph.result(logits, "logits", 1, 1, vocab_size)
        for name, shape in self._outputs:
            self._graph.output(name, TensorProto.FLOAT, *shape)

    def _updated(self, name: str, shape: tuple[int, ...], kept: str, left: str, right: str) -> str:
        """The new content of a cache, cache * kept + left @ right: `kept` is 0 at positions that are replaced, else 1,
        and the product puts the new keys or values there.
        """
        graph = self._graph
        cache = graph.input(name, TensorProto.FLOAT, *shape)
        placed = graph.op("MatMul" if self._size.tokens > 1 else "Mul", left, right)
        graph.put("Add", [graph.op("Mul", cache, kept), placed], [new_name(name)])
        self._outputs.append((new_name(name), shape))
        return new_name(name)

    def _choice(self, name: str, *shape: int) -> str:
        """Declare an input of zeros and ones. A Clip from 0 to 1 follows it, which shows its range to `graph.half`: the
        pass that finds what fp16 cannot compute.
        """
        given = self._graph.input(name, TensorProto.FLOAT, *shape)
        return self._graph.op("Clip", given, self._graph.scalar(0), self._graph.scalar(1))

    def _mask(self, window: int) -> str:
        """The mask that is added to the scores, [1, 1, N, C]: 0 for keys that a token sees in this window, else -30000
        (HIDDEN). Layers with the same window share a mask.
        """
        if window not in self._masks:
            graph, size = self._graph, self._size
            shape = 1, 1, size.tokens, size.context
            visible = graph.input(visible_name(window), TensorProto.FLOAT, *shape)
            is_seen = graph.op("Greater", visible, graph.scalar(0.5))
            self._masks[window] = graph.op("Where", is_seen, graph.scalar(0), graph.scalar(HIDDEN))
        return self._masks[window]

    def _by_heads(self, x: str, num_heads: int, order: Sequence[int]) -> str:
        """Reshape [1, tokens, heads * size] to [1, tokens, heads, size], and transpose the dimensions to `order`."""
        graph = self._graph
        return graph.op("Transpose", graph.op("Reshape", x, graph.ints(0, 0, num_heads, -1)), perm=list(order))

    def _repeated(self, x: str, times: int, *shape: int) -> str:
        """Repeat each head `times` times; `shape` is the shape of the result."""
        if times == 1:
            return x
        graph = self._graph
        wide = graph.op("Expand", graph.op("Unsqueeze", x, graph.ints(2)), graph.ints(1, 1, times, 1, 1))
        return graph.op("Reshape", wide, graph.ints(*shape))
