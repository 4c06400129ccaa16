"""The forms of an encoder's graph: what its inputs are, and how the tokens of a text see each other.

An architecture is written once, by the methods of an `EncoderForm`. They differ in the dimensions before the last: a
packed graph has [tokens, width], a plain one [batch, tokens, width]. Attention is written out: the standard's operator
takes as long on ONNX Runtime and OpenVINO, and conversions know the parts.
"""

from typing import Literal, Protocol, TypeAlias

import numpy as np
from onnx import TensorProto

from triune.engine.models.builder import ModelBuilder

EncoderFormName: TypeAlias = Literal["packed", "plain"]

_MASKED = -10_000.0
"""Added to the attention scores of tokens that are none, as in BERT. Finite in every precision, so that a text without
tokens gives no NaN.
"""


class EncoderForm(Protocol):
    """A graph's inputs, its attention, and what it makes of all tokens of a text.

    Attributes:
        ids: the input of token ids.
        sizes: the names of the dimensions before the last.
    """

    ids: str
    sizes: tuple[str, ...]

    def positions(self) -> str:
        """The position of each token in its text, INT64, in a shape that broadcasts to that of the ids."""
        ...

    def types(self) -> str:
        """The input of token types (in BERT's words: 0 for the first of two texts, 1 for the second), as the ids."""
        ...

    def attend(self, query: str, key: str, value: str, *, num_heads: int, scale: float, bias: str | None = None) -> str:
        """Attention of all tokens of a text, of [..., heads * size]. `bias` is added to the scores: FP32 [1, heads,
        tokens, tokens] over `steps()`.
        """
        ...

    def steps(self) -> str:
        """The positions of the longest text, INT64 [tokens]."""
        ...

    def first(self, hidden: str) -> str:
        """[..., width] to the first token of each text, [batch, width]."""
        ...

    def mean(self, hidden: str) -> str:
        """[..., width] to the mean of the tokens of each text, [batch, width]; 0 for a text without tokens."""
        ...

    def largest(self, hidden: str) -> str:
        """[..., width] to the largest of each number among the tokens of a text, [batch, width]."""
        ...


def encoder_form_of(name: EncoderFormName, graph: ModelBuilder) -> EncoderForm:
    """The form of this name. Declares the graph's first inputs."""
    return PackedEncoder(graph) if name == "packed" else PlainEncoder(graph)


class _Encoder:
    """What both forms compute on texts of equal length, the shorter ones filled up."""

    def __init__(self, graph: ModelBuilder, kept: str, steps: str) -> None:
        """Args:
        graph: the graph.
        kept: FP32 [batch, tokens], 1 where a text has a token, else 0.
        steps: see `EncoderForm.steps`.
        """
        self._graph = graph
        self._kept = kept
        self._steps = steps
        ignored = graph.op("Sub", graph.scalar(1), graph.op("Unsqueeze", kept, graph.ints(1, 2)))
        self._mask = graph.op("Mul", ignored, graph.scalar(_MASKED))

    def steps(self) -> str:
        """See `EncoderForm`."""
        return self._steps

    def _attend(self, query: str, key: str, value: str, num_heads: int, scale: float, bias: str | None) -> str:
        graph = self._graph
        query, key, value = (
            graph.op("Transpose", graph.op("Reshape", each, graph.ints(0, 0, num_heads, -1)), perm=perm)
            for each, perm in ((query, [0, 2, 1, 3]), (key, [0, 2, 3, 1]), (value, [0, 2, 1, 3]))
        )
        mask = self._mask if bias is None else graph.op("Add", self._mask, bias)
        scores = graph.op("Mul", graph.op("MatMul", query, key), graph.scalar(scale))
        shares = graph.op("Softmax", graph.op("Add", scores, mask), axis=-1)
        mixed = graph.op("Transpose", graph.op("MatMul", shares, value), perm=[0, 2, 1, 3])
        return graph.op("Reshape", mixed, graph.ints(0, 0, -1))

    def _mean(self, hidden: str) -> str:
        graph = self._graph
        kept = graph.op("Mul", hidden, graph.op("Unsqueeze", self._kept, graph.ints(2)))
        count = graph.op("ReduceSum", self._kept, graph.ints(1), keepdims=1)
        total = graph.op("ReduceSum", kept, graph.ints(1), keepdims=0)
        return graph.op("Div", total, graph.op("Max", count, graph.scalar(1e-9)))

    def _largest(self, hidden: str) -> str:
        graph = self._graph
        is_kept = graph.cast(graph.op("Unsqueeze", self._kept, graph.ints(2)), TensorProto.BOOL)
        return graph.op("ReduceMax", graph.op("Where", is_kept, hidden, graph.scalar(-1e9)), graph.ints(1), keepdims=0)


class PlainEncoder(_Encoder):
    """Texts of equal length, the shorter ones filled up.

    Inputs: `input_ids`, `attention_mask` (1 keeps a token, 0 masks it) and maybe `token_type_ids`, INT64 [batch,
    tokens].
    """

    def __init__(self, graph: ModelBuilder) -> None:
        self.sizes: tuple[str, ...] = ("batch", "tokens")
        self.ids = graph.input("input_ids", TensorProto.INT64, *self.sizes)
        mask = graph.input("attention_mask", TensorProto.INT64, *self.sizes)
        number = graph.op("Squeeze", graph.op("Shape", self.ids, start=1, end=2))
        zero, one = (graph.table(f"number {value}", np.int64(value)) for value in (0, 1))
        super().__init__(graph, graph.cast(mask, TensorProto.FLOAT), graph.op("Range", zero, number, one))

    def positions(self) -> str:
        """See `EncoderForm`."""
        return self._steps

    def types(self) -> str:
        """See `EncoderForm`."""
        return self._graph.input("token_type_ids", TensorProto.INT64, *self.sizes)

    def attend(self, query: str, key: str, value: str, *, num_heads: int, scale: float, bias: str | None = None) -> str:
        """See `EncoderForm`."""
        return self._attend(query, key, value, num_heads, scale, bias)

    def first(self, hidden: str) -> str:
        """See `EncoderForm`."""
        return self._graph.op("Gather", hidden, self._graph.table("number 0", np.int64(0)), axis=1)

    def mean(self, hidden: str) -> str:
        """See `EncoderForm`."""
        return self._mean(hidden)

    def largest(self, hidden: str) -> str:
        """See `EncoderForm`."""
        return self._largest(hidden)


class PackedEncoder(_Encoder):
    """The tokens of many texts one after the other: only attention and pooling see shorter texts filled up.

    Inputs: `input_ids`, `position_ids` and maybe `token_type_ids`, INT64 [tokens]; `token_rows` INT64 [batch, longest],
    which of the tokens each place of a text has, any at those beyond its end; `token_places` INT64 [tokens], the place
    of each token in `token_rows`, counted row by row; `lengths` INT64 [batch], the tokens of each text.
    """

    def __init__(self, graph: ModelBuilder) -> None:
        self.sizes: tuple[str, ...] = ("tokens",)
        self.ids = graph.input("input_ids", TensorProto.INT64, *self.sizes)
        self._positions = graph.input("position_ids", TensorProto.INT64, *self.sizes)
        self._rows = graph.input("token_rows", TensorProto.INT64, "batch", "longest")
        self._places = graph.input("token_places", TensorProto.INT64, *self.sizes)
        lengths = graph.input("lengths", TensorProto.INT64, "batch")
        number = graph.op("Squeeze", graph.op("Shape", self._rows, start=1, end=2))
        zero, one = (graph.table(f"number {value}", np.int64(value)) for value in (0, 1))
        steps = graph.op("Range", zero, number, one)
        is_kept = graph.op("Less", steps, graph.op("Unsqueeze", lengths, graph.ints(1)))
        super().__init__(graph, graph.cast(is_kept, TensorProto.FLOAT), steps)

    def positions(self) -> str:
        """See `EncoderForm`."""
        return self._positions

    def types(self) -> str:
        """See `EncoderForm`."""
        return self._graph.input("token_type_ids", TensorProto.INT64, *self.sizes)

    def attend(self, query: str, key: str, value: str, *, num_heads: int, scale: float, bias: str | None = None) -> str:
        """See `EncoderForm`."""
        query, key, value = (self._filled(each) for each in (query, key, value))
        wide = self._attend(query, key, value, num_heads, scale, bias)
        return self._graph.op("Gather", self._graph.op("Flatten", wide, axis=2), self._places)

    def first(self, hidden: str) -> str:
        """See `EncoderForm`."""
        zero = self._graph.table("number 0", np.int64(0))
        return self._graph.op("Gather", hidden, self._graph.op("Gather", self._rows, zero, axis=1))

    def mean(self, hidden: str) -> str:
        """See `EncoderForm`."""
        return self._mean(self._filled(hidden))

    def largest(self, hidden: str) -> str:
        """See `EncoderForm`."""
        return self._largest(self._filled(hidden))

    def _filled(self, x: str) -> str:
        """[tokens, width] to [batch, longest, width]."""
        return self._graph.op("Gather", x, self._rows)
