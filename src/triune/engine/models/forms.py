"""The forms of a decoder's graph. They differ in the graph's inputs, and in how attention reads earlier tokens.

An architecture is written once, by the methods of a `Form`. Its values are [tokens, width] in a paged graph, and
[batch, tokens, width] in the others.
"""

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

import numpy as np
from onnx import TensorProto

from triune.core.explicit_cache import ExplicitSize
from triune.engine.models.attention import MASKED, steps_of
from triune.engine.models.builder import ModelBuilder
from triune.engine.models.explicit import Explicit
from triune.engine.weights.config import LongScaling, Rope
from triune.graph.paged_attention import DOMAIN, OP_TYPE

FormName: TypeAlias = Literal["paged", "plain"]

FormChoice: TypeAlias = FormName | ExplicitSize
"""A form by its name, or the sizes of the form with an explicit cache."""


class Form(Protocol):
    """A graph's inputs, attention and outputs.

    Attributes:
        ids: the input of token ids.
    """

    ids: str

    def positions(self) -> str:
        """The position of each token in its sequence, INT64, in the shape of the ids."""
        ...

    def split_heads(self, x: str, num_heads: int, head_size: int) -> str:
        """Build [..., heads, size] from [..., heads * size]."""
        ...

    def join_heads(self, x: str) -> str:
        """Build [..., heads * size] from [..., heads, size]."""
        ...

    def rotate(self, x: str, num_heads: int, head_size: int, rope: Rope) -> str:
        """Build the rotary embedding of queries or keys [..., heads * size]."""
        ...

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
        """Build the causal attention of a layer, [..., heads * size]. Call it once for each layer, in the order of
        layers.

        Args:
            query: the queries [..., heads * size].
            key: the keys [..., kv heads * size].
            value: the values [..., kv heads * size].
            num_heads: the number of heads of the queries.
            num_kv_heads: the number of heads of keys and values, each of which several heads of queries may share.
            head_size: the width of a head.
            scale: the factor of the scores.
            sliding_window: the number of tokens to which a token attends, itself included; 0 for all.
            softcap: the limit c of the scores, which become c * tanh(score / c); 0 for none.
            distance_bias: added to the scores, FP32 [heads, distances]: column d for a key that is d tokens before its
                query; keys further back have the last column. "" for none.
        """
        ...

    def wanted(self, hidden: str) -> str:
        """Build the hidden states of the tokens whose logits are wanted."""
        ...

    def put_logits(self, logits: str, vocab_size: int) -> None:
        """Declare the logits as an output of the graph, and the new caches if the form has any."""
        ...


def form_of(choice: FormChoice, graph: ModelBuilder, num_positions: int) -> Form:
    """Create the form of a model's graph: with a paged cache, with an explicit cache of fixed size, or without a cache.
    Its constructor declares the graph's first inputs.

    Args:
        choice: which form.
        graph: the builder of the graph.
        num_positions: the most tokens of a sequence.
    """
    if isinstance(choice, ExplicitSize):
        return Explicit(graph, num_positions, choice)
    return Paged(graph, num_positions) if choice == "paged" else Plain(graph, num_positions)


class Paged:
    """Packed tokens of many sequences, over caches of blocks.

    Inputs: `input_ids`, `position_ids` INT64 [tokens]; `past_lengths`, `subsequence_begins`, `block_indices`,
    `block_indices_begins` INT32 as `graph.paged_attention` says; `logits_indices` INT64 [n], the positions of the
    packed tokens whose logits are output; if there are adapters, `adapters` and `adapter_rows` INT64 [adapted] (see
    `engine.models.adapters`); for each layer N `key_cache.N` and `value_cache.N` FP32 [num_blocks, heads, block_size,
    size]. Outputs: `logits` FP32 [n, vocabulary]; `key_cache.N.new`, `value_cache.N.new`.
    """

    def __init__(self, graph: ModelBuilder, num_positions: int) -> None:
        self._graph = graph
        self._num_positions = num_positions
        self._num_layers = 0
        self.ids = graph.input("input_ids", TensorProto.INT64, "tokens")
        self._positions = graph.input("position_ids", TensorProto.INT64, "tokens")
        self._indices = [
            graph.input(name, TensorProto.INT32, size)
            for name, size in (
                ("past_lengths", "sequences"),
                ("subsequence_begins", "sequences + 1"),
                ("block_indices", "blocks"),
                ("block_indices_begins", "sequences + 1"),
            )
        ]
        self._wanted = graph.input("logits_indices", TensorProto.INT64, "wanted")
        graph.choose_adapters("tokens")
        self._rows: str | None = None
        self._outputs: list[tuple[str, tuple[int | str, ...]]] = []

    def positions(self) -> str:
        """Implements `Form.positions`."""
        return self._positions

    def split_heads(self, x: str, num_heads: int, head_size: int) -> str:
        """Implements `Form.split_heads`."""
        return self._graph.op("Reshape", x, self._graph.ints(0, num_heads, head_size))

    def join_heads(self, x: str) -> str:
        """Implements `Form.join_heads`."""
        return self._graph.op("Reshape", x, self._graph.ints(0, -1))

    def rotate(self, x: str, num_heads: int, head_size: int, rope: Rope) -> str:
        """Implements `Form.rotate`."""
        graph = self._graph
        # Make each packed token a row of a batch with one token, so that no runtime has to transpose heads and tokens.
        rows = graph.op("Unsqueeze", x, graph.ints(1))
        rotated = _rotate(graph, rows, num_heads, head_size, rope, [self._num_positions], self._rows_of_positions())
        return graph.op("Squeeze", rotated, graph.ints(1))

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
        layer, self._num_layers = self._num_layers, self._num_layers + 1
        shape = "num_blocks", num_kv_heads, "block_size", head_size
        caches = [self._graph.input(f"{kind}_cache.{layer}", TensorProto.FLOAT, *shape) for kind in ("key", "value")]
        output = self._graph.name()
        self._graph.put(
            OP_TYPE,
            [query, key, value, *caches, *self._indices, *([distance_bias] if distance_bias else [])],
            [output, *(f"{name}.new" for name in caches)],
            domain=DOMAIN,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            scale=scale,
            sliding_window=sliding_window,
            softcap=softcap,
        )
        self._outputs += [(f"{name}.new", shape) for name in caches]
        return output

    def wanted(self, hidden: str) -> str:
        """Implements `Form.wanted`."""
        return self._graph.op("Gather", hidden, self._wanted)

    def put_logits(self, logits: str, vocab_size: int) -> None:
        """Implements `Form.put_logits`."""
        self._graph.result(logits, "logits", "wanted", vocab_size)
        for name, shape in self._outputs:
            self._graph.output(name, TensorProto.FLOAT, *shape)

    def _rows_of_positions(self) -> str:
        """The positions as [tokens, 1]. The node is built once in a graph."""
        if self._rows is None:
            self._rows = self._graph.op("Unsqueeze", self._positions, self._graph.ints(1))
        return self._rows


class Plain:
    """Whole sequences of equal length, without a cache.

    Inputs: `input_ids` INT64 [batch, tokens]; if there are adapters, `adapters` of the same shape. Output: `logits`
    FP32 [batch, tokens, vocabulary].
    """

    def __init__(self, graph: ModelBuilder, num_positions: int) -> None:
        self._graph = graph
        self._num_positions = num_positions
        self.ids = graph.input("input_ids", TensorProto.INT64, "batch", "tokens")
        graph.choose_adapters("batch", "tokens")
        self._masks: dict[int, str] = {}
        self._biases: dict[str, str] = {}
        self._rows_of_lengths: dict[int, str] = {}
        self._range = steps_of(graph, self.ids)
        self._positions = graph.op("Expand", self._range, graph.op("Shape", self.ids))

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
        """Implements `Form.rotate`. LongRoPE's factors are chosen by the length of the text, as transformers does."""
        scaling, contexts, rows = rope.scaling, [self._num_positions], self._positions
        if isinstance(scaling, LongScaling) and self._num_positions > scaling.original_max_position_embeddings:
            num_short = scaling.original_max_position_embeddings
            contexts, rows = [num_short, *contexts], self._rows_behind(num_short)
        return _rotate(self._graph, x, num_heads, head_size, rope, contexts, rows)

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
        graph = self._graph
        masks = [self._window_mask(sliding_window)] if sliding_window else []
        if distance_bias:
            bias = self._bias(distance_bias)
            masks = [graph.op("Where", *masks, bias, graph.scalar(MASKED)) if masks else bias]
        return graph.op(
            "Attention",
            *(query, key, value, *masks),
            is_causal=1,
            q_num_heads=num_heads,
            kv_num_heads=num_kv_heads,
            scale=scale,
            softcap=softcap,
        )

    def wanted(self, hidden: str) -> str:
        """Implements `Form.wanted`."""
        return hidden

    def put_logits(self, logits: str, vocab_size: int) -> None:
        """Implements `Form.put_logits`."""
        self._graph.result(logits, "logits", "batch", "tokens", vocab_size)

    def _rows_behind(self, num_short: int) -> str:
        """The row of each token in tables whose first `num_short` rows are for texts of at most `num_short` tokens, and
        whose other rows are for longer texts.
        """
        if num_short not in self._rows_of_lengths:
            graph = self._graph
            length = graph.op("Shape", self.ids, start=1, end=2)
            is_long = graph.op("Greater", length, graph.ints(num_short))
            first = graph.op("Where", is_long, graph.ints(num_short), graph.ints(0))
            self._rows_of_lengths[num_short] = graph.op("Add", self._positions, first)
        return self._rows_of_lengths[num_short]

    def _bias(self, distance_bias: str) -> str:
        """The position bias that is added to the scores, FP32 [1, heads, tokens, tokens]."""
        if distance_bias not in self._biases:
            graph = self._graph
            distances = graph.op("Sub", graph.op("Unsqueeze", self._range, graph.ints(1)), self._range)
            last = graph.op("Sub", graph.op("Shape", distance_bias, start=1, end=2), graph.ints(1))
            # Later keys, which are masked by causal attention, get distance 0 here.
            limited = graph.op("Min", graph.op("Max", distances, graph.number(0)), last)
            added = graph.op("Gather", distance_bias, limited, axis=1)
            self._biases[distance_bias] = graph.op("Unsqueeze", added, graph.ints(0))
        return self._biases[distance_bias]

    def _window_mask(self, window: int) -> str:
        """Build BOOL [tokens, tokens]: whether a key is less than `window` tokens before a query."""
        if window not in self._masks:
            graph = self._graph
            queries = graph.op("Unsqueeze", self._range, graph.ints(1))
            distance = graph.op("Sub", queries, self._range)
            self._masks[window] = graph.op("Less", distance, graph.number(window))
        return self._masks[window]


def _rotate(
    graph: ModelBuilder, x: str, num_heads: int, head_size: int, rope: Rope, contexts: Sequence[int], rows: str
) -> str:
    """Build RotaryEmbedding of [batch, tokens, heads * size].

    A graph has one pair of tables (cosines and sines) for each rope. A table has a row for each position; if `contexts`
    has several lengths of contexts, in tokens, the rows for each length follow those for the length before. `rows` is
    the name of INT64 [batch, tokens], the row of each token.
    """
    cosines, sines = (f"{kind} {rope}" for kind in ("cosines", "sines"))
    if not graph.has_table(cosines):
        tables = zip(*(rope.tables(each) for each in contexts), strict=True)
        for name, parts in zip((cosines, sines), tables, strict=True):
            graph.table(name, np.concatenate(parts))
    # A `rotary_embedding_dim` of 0 means the whole head. OpenVINO then fuses the operator into fewer nodes than with
    # the size.
    part = rope.rotary_dim if rope.rotary_dim != head_size else 0
    return graph.op("RotaryEmbedding", x, cosines, sines, rows, num_heads=num_heads, rotary_embedding_dim=part)
