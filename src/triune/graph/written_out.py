"""Replace `triune::PagedAttention` by standard ONNX operators, for runtimes whose own operator for it lacks a feature.

The graph then reads its caches, and its outputs are the keys and values of the decoding step's tokens. No cache is an
output, so that none is copied: the caller of the graph writes the new keys and values to the caches after the step.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Final

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from triune.graph.builder import Builder
from triune.graph.held import HeldModel
from triune.graph.names import Names
from triune.graph.paged_attention import BIAS_INPUT, DOMAIN, OP_TYPE, cache_heads
from triune.graph.values import attributes_of

_UNSEEN: Final = -1e30
"""The score of a key that a query does not attend to. It is finite, so that a row in which all keys are masked gives no
NaN.
"""

_INPUTS: Final[Mapping[str, Sequence[str]]] = {
    "token_rows": ("sequences", "longest"),
    "token_places": ("tokens",),
    "token_counts": ("sequences",),
    "block_table": ("sequences", "most blocks"),
}
"""INT64 inputs of the new graph, and the names of their dimensions. The caller computes them from the arrays of each
decoding step: see `core.step_rows.rows_of`.
"""


def new_tokens(cache: str) -> str:
    """The name of the output with the new keys or values to write to a cache: FP32 [tokens, heads * size]."""
    return f"{cache}.tokens"


def written_out(model: HeldModel, cache_type: int, block_size: int) -> HeldModel:
    """Make a copy of a model in the paged form (`engine.models.forms`) in which standard operators replace the
    PagedAttention nodes.

    Args:
        model: the model; not changed.
        cache_type: the element type of the caches, a TensorProto.DataType: FLOAT, FLOAT16 or BFLOAT16.
        block_size: the tokens of a block.

    Returns:
        a model whose inputs are the same, with caches of `cache_type`, and those of `_INPUTS`. Its outputs are
            `logits`, and the output `new_tokens(cache)` for each cache.
    """
    copy = ModelProto()
    copy.CopyFrom(model.model)
    graph = copy.graph
    caches = cache_heads(graph)
    del graph.node[:]
    writer = _Writer(model.model.graph, cache_type, block_size)
    for node in model.model.graph.node:
        if node.op_type == OP_TYPE and node.domain == DOMAIN:
            writer.write(node)
            graph.node.extend(writer.take())
        else:
            graph.node.append(node)
    _declare(graph, caches, cache_type, block_size)
    return HeldModel(copy, model.weights)


def _declare(graph: GraphProto, caches: Mapping[str, tuple[int, int]], cache_type: int, block_size: int) -> None:
    """Declare the inputs and outputs of the new graph."""
    for value in graph.input:
        if value.name in caches:
            heads, size = caches[value.name]
            shape = ("num_blocks", heads, block_size, size)
            value.CopyFrom(helper.make_tensor_value_info(value.name, cache_type, shape))
    known = {value.name for value in graph.input}
    missing = {name: shape for name, shape in _INPUTS.items() if name not in known}
    graph.input.extend(helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name, shape in missing.items())
    logits = [value for value in graph.output if value.name == "logits"]
    new = [
        helper.make_tensor_value_info(new_tokens(name), TensorProto.FLOAT, ("tokens", heads * size))
        for name, (heads, size) in caches.items()
    ]
    del graph.output[:]
    graph.output.extend([*logits, *new])


class _Writer:
    """Writes the operators that replace PagedAttention nodes, one node after the other. Values that depend on the step
    alone are computed once for all nodes.

    In the shapes below, longest is the largest number of new tokens of a sequence, and keys, most blocks * block +
    longest, is the number of cached and new positions of each sequence.
    """

    def __init__(self, graph: GraphProto, cache_type: int, block_size: int) -> None:
        self._caches = cache_heads(graph)
        self._cache_type = cache_type
        self._block_size = block_size
        self._build = Builder(Names(graph).prefix("attention"))
        self._taken = 0
        self._made: dict[Hashable, str] = {}

    def take(self) -> list[NodeProto]:
        """The nodes that were written since the last call."""
        nodes = self._build.nodes[self._taken :]
        self._taken = len(self._build.nodes)
        return nodes

    def write(self, node: NodeProto) -> None:
        """Write the standard operators that replace a PagedAttention node."""
        b, options = self._build, attributes_of(node)
        query, key, value, key_cache, value_cache = node.input[:5]
        heads, kv_heads = int(options["num_heads"]), int(options["num_kv_heads"])
        size = self._caches[key_cache][1]
        scale = float(options.get("scale", 0.0)) or size**-0.5
        for cache, new in ((key_cache, key), (value_cache, value)):
            b.put("Identity", [new], [new_tokens(cache)])
        keys, values = self._all(key_cache, key), self._all(value_cache, value)
        # Replace the values in rows that are no tokens of the sequence by 0: a NaN among them would reach the answers,
        # since 0 * NaN is NaN.
        values = b.op("Where", self._once("kept rows", self._kept_rows), values, self._scalar(0.0))
        queries = self._by_heads(query, heads)
        if heads != kv_heads:
            queries = b.op("Reshape", queries, b.ints(0, kv_heads, -1, size))
        scores = b.op("MatMul", queries, b.op("Transpose", keys, perm=[0, 1, 3, 2]))
        if heads != kv_heads:
            scores = b.op("Reshape", scores, self._shape_of_scores(heads))
        if scale != 1:
            scores = b.op("Mul", scores, self._scalar(scale))
        if cap := float(options.get("softcap", 0.0)):
            scores = b.op("Mul", b.op("Tanh", b.op("Div", scores, self._scalar(cap))), self._scalar(cap))
        if len(node.input) > BIAS_INPUT and node.input[BIAS_INPUT]:
            scores = b.op("Add", scores, self._bias(node.input[BIAS_INPUT]))
        seen = self._seen(int(options.get("sliding_window", 0)))
        shares = b.op("Softmax", b.op("Where", seen, scores, self._scalar(_UNSEEN)), axis=-1)
        if heads != kv_heads:
            shares = b.op("Reshape", shares, self._shape_of_groups(kv_heads))
        mixed = b.op("MatMul", shares, values)
        if heads != kv_heads:
            mixed = b.op("Reshape", mixed, b.ints(0, heads, -1, size))
        wide = b.op("Reshape", b.op("Transpose", mixed, perm=[0, 2, 1, 3]), b.ints(-1, heads * size))
        b.put("Gather", [wide, "token_places"], [node.output[0]])

    def _all(self, cache: str, new: str) -> str:
        """Build the keys or values of all tokens of each sequence: first those in its blocks, then those of the step;
        FP32 [sequences, heads, keys, size].
        """
        b, (heads, size) = self._build, self._caches[cache]
        rows = b.op("Reshape", cache, b.ints(-1, self._block_size, size))
        kept = b.op("Gather", rows, self._once(("blocks", heads), lambda: self._blocks(heads)))
        if self._cache_type != TensorProto.FLOAT:
            kept = b.cast(kept, TensorProto.FLOAT)
        return b.op("Concat", b.op("Reshape", kept, b.ints(0, 0, -1, size)), self._by_heads(new, heads), axis=2)

    def _blocks(self, heads: int) -> str:
        """Build the indices of each sequence's blocks for each head, in a cache of shape [blocks * heads, block, size]:
        INT64 [sequences, heads, blocks].
        """
        b = self._build
        first = b.op("Mul", b.op("Unsqueeze", "block_table", b.ints(1)), b.ints(heads))
        return b.op("Add", first, b.constant([[[head] for head in range(heads)]], "int64"))

    def _by_heads(self, x: str, heads: int) -> str:
        """Build rows [sequences, heads, longest, size] from packed tokens [tokens, heads * size]."""
        b = self._build
        rows = b.op("Reshape", b.op("Gather", x, "token_rows"), b.ints(0, 0, heads, -1))
        return b.op("Transpose", rows, perm=[0, 2, 1, 3])

    def _shape_of_scores(self, heads: int) -> str:
        """Build the shape of the scores: [sequences, heads, longest, keys]."""
        b = self._build
        return self._once(
            ("shape of scores", heads),
            lambda: b.op("Concat", b.ints(0, heads), b.op("Shape", "token_rows", start=1), b.ints(-1), axis=0),
        )

    def _shape_of_groups(self, kv_heads: int) -> str:
        """Build the shape of the scores if queries are grouped by heads of keys: [sequences, heads of keys, heads of
        queries for each head of keys * longest, keys].
        """
        b, is_kept = self._build, self._once("kept", self._kept)
        return self._once(
            ("shape of groups", kv_heads),
            lambda: b.op("Concat", b.ints(0, kv_heads, -1), b.op("Shape", is_kept, start=1), axis=0),
        )

    def _scalar(self, value: float) -> str:
        return self._once(("scalar", value), lambda: self._build.typed(value, TensorProto.FLOAT))

    def _past(self) -> str:
        """Build the number of cached tokens of each sequence: INT64 [sequences, 1]."""
        b = self._build
        return b.op("Unsqueeze", b.cast("past_lengths", TensorProto.INT64), b.ints(1))

    def _steps(self) -> str:
        """Build the positions in a row of tokens, 0 to longest - 1: INT64 [longest]."""
        b = self._build
        longest = b.op("Squeeze", b.op("Shape", "token_rows", start=1))
        return b.op("Range", b.constant(0, "int64"), longest, b.constant(1, "int64"))

    def _places(self) -> str:
        """Build the positions in a sequence's blocks, 0 to most blocks * block - 1: INT64 [most blocks * block]."""
        b = self._build
        num_blocks = b.op("Squeeze", b.op("Shape", "block_table", start=1))
        end = b.op("Mul", num_blocks, b.constant(self._block_size, "int64"))
        return b.op("Range", b.constant(0, "int64"), end, b.constant(1, "int64"))

    def _kept(self) -> str:
        """Build whether each key is a token of its sequence, and not padding: BOOL [sequences, keys]."""
        b = self._build
        is_past = b.op("Less", self._once("places", self._places), self._once("past", self._past))
        counts = b.op("Unsqueeze", "token_counts", b.ints(1))
        return b.op("Concat", is_past, b.op("Less", self._once("steps", self._steps), counts), axis=1)

    def _kept_rows(self) -> str:
        """Build the result of `_kept` as BOOL [sequences, 1, keys, 1]."""
        return self._build.op("Unsqueeze", self._once("kept", self._kept), self._build.ints(1, 3))

    def _distances(self) -> str:
        """Build the number of tokens from each key to each query: INT64 [sequences, longest, keys]."""
        b = self._build
        queries = b.op("Add", self._once("past", self._past), self._once("steps", self._steps))
        columns = b.op("Unsqueeze", queries, b.ints(2))
        to_past = b.op("Sub", columns, self._once("places", self._places))
        return b.op("Concat", to_past, b.op("Sub", columns, b.op("Unsqueeze", queries, b.ints(1))), axis=2)

    def _seen(self, window: int) -> str:
        """Build the attention mask, whether a query sees a key: BOOL [sequences, 1, longest, keys]."""
        distances, is_kept = self._once("distances", self._distances), self._once("kept", self._kept)

        def make() -> str:
            b = self._build
            is_before = b.op("GreaterOrEqual", distances, b.constant(0, "int64"))
            seen = b.op("And", is_before, b.op("Unsqueeze", is_kept, b.ints(1)))
            if window:
                seen = b.op("And", seen, b.op("Less", distances, b.constant(window, "int64")))
            return b.op("Unsqueeze", seen, b.ints(1))

        return self._once(("seen", window), make)

    def _bias(self, by_distance: str) -> str:
        """Build the bias of the scores, FP32 [sequences, heads, longest, keys], from the bias of each distance, [heads,
        distances].
        """
        distances = self._once("distances", self._distances)

        def make() -> str:
            b = self._build
            last = b.op("Sub", b.op("Shape", by_distance, start=1), b.ints(1))
            limited = b.op("Min", b.op("Max", distances, b.constant(0, "int64")), last)
            return b.op("Transpose", b.op("Gather", by_distance, limited, axis=1), perm=[1, 0, 2, 3])

        return self._once(("bias", by_distance), make)

    def _once(self, key: Hashable, make: Callable[[], str]) -> str:
        """Call `make` once for each key, and return the name of the value that it wrote."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]
