"""The forms of an encoder's graph. They differ in the graph's inputs, and in how attention handles several texts.

An architecture is written once, by the methods of an `EncoderForm`. Its values are [tokens, width] in a packed graph,
and [batch, tokens, width] in a plain one.
"""

from typing import Literal, Protocol, TypeAlias

from onnx import TensorProto

from triune.engine.models.attention import attend, mask_of, steps_of
from triune.engine.models.builder import ModelBuilder

EncoderFormName: TypeAlias = Literal["packed", "plain"]


class EncoderForm(Protocol):
    """A form of the encoder's graph: its inputs, its attention, and its pooling.

    Attributes:
        ids: the input of token ids.
        sizes: the names of the dimensions of the ids. Values have these dimensions, then the width.
    """

    ids: str
    sizes: tuple[str, ...]

    def positions(self) -> str:
        """The position of each token in its text, INT64, in a shape that broadcasts to the ids. Call it once."""
        ...

    def types(self) -> str:
        """The type of each token, INT64, in the shape of the ids: 0 for the first of two texts, 1 for the second. Call
        it once.
        """
        ...

    def attend(self, query: str, key: str, value: str, *, num_heads: int, scale: float, bias: str | None = None) -> str:
        """Build the attention of all tokens of a text, [..., heads * size]. `bias` is added to the scores: FP32 [1,
        heads, tokens, tokens], for queries and keys at the positions that `steps` returns.
        """
        ...

    def steps(self) -> str:
        """Build the positions of the longest text's tokens, 0, 1, 2, ...: INT64 [tokens]."""
        ...

    def first(self, hidden: str) -> str:
        """Build the hidden state of the first token of each text, [batch, width], from [..., width]."""
        ...

    def mean(self, hidden: str) -> str:
        """Build the mean of the hidden states of each text, [batch, width], from [..., width]; 0 for a text without
        tokens.
        """
        ...

    def largest(self, hidden: str) -> str:
        """Build the elementwise maximum of the hidden states of each text, [batch, width], from [..., width]."""
        ...


def encoder_form_of(name: EncoderFormName, graph: ModelBuilder) -> EncoderForm:
    """Create the form of this name, which declares the graph's first inputs."""
    return PackedEncoder(graph) if name == "packed" else PlainEncoder(graph)


class _Encoder:
    """What `PlainEncoder` and `PackedEncoder` share: attention and pooling of texts that are padded to equal length."""

    def __init__(self, graph: ModelBuilder, kept: str, steps: str) -> None:
        """Args:
        graph: the graph.
        kept: FP32 [batch, tokens], 1 where a text has a token, else 0.
        steps: see `EncoderForm.steps`.
        """
        self._graph = graph
        self._kept = kept
        self._steps = steps
        self._mask = mask_of(graph, kept)

    def steps(self) -> str:
        """Implements `EncoderForm.steps`."""
        return self._steps

    def _attend(self, query: str, key: str, value: str, num_heads: int, scale: float, bias: str | None) -> str:
        mask = self._mask if bias is None else self._graph.op("Add", self._mask, bias)
        return attend(self._graph, query, key, value, num_heads=num_heads, scale=scale, added=mask)

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
    """Texts of equal length: shorter ones are padded.

    Inputs: `input_ids`, `attention_mask` (1 keeps a token, 0 masks it) and maybe `token_type_ids`, INT64 [batch,
    tokens].
    """

    def __init__(self, graph: ModelBuilder) -> None:
        self.sizes: tuple[str, ...] = ("batch", "tokens")
        self.ids = graph.input("input_ids", TensorProto.INT64, *self.sizes)
        mask = graph.input("attention_mask", TensorProto.INT64, *self.sizes)
        super().__init__(graph, graph.cast(mask, TensorProto.FLOAT), steps_of(graph, self.ids))

    def positions(self) -> str:
        """Implements `EncoderForm.positions`."""
        return self._steps

    def types(self) -> str:
        """Implements `EncoderForm.types`."""
        return self._graph.input("token_type_ids", TensorProto.INT64, *self.sizes)

    def attend(self, query: str, key: str, value: str, *, num_heads: int, scale: float, bias: str | None = None) -> str:
        """Implements `EncoderForm.attend`."""
        return self._attend(query, key, value, num_heads, scale, bias)

    def first(self, hidden: str) -> str:
        """Implements `EncoderForm.first`."""
        return self._graph.op("Gather", hidden, self._graph.number(0), axis=1)

    def mean(self, hidden: str) -> str:
        """Implements `EncoderForm.mean`."""
        return self._mean(hidden)

    def largest(self, hidden: str) -> str:
        """Implements `EncoderForm.largest`."""
        return self._largest(hidden)


class PackedEncoder(_Encoder):
    """The tokens of many texts, packed one after the other. Only attention and pooling use a padded form.

    Inputs: `input_ids` and maybe `position_ids` and `token_type_ids`, INT64 [tokens]; `token_rows` INT64 [batch,
    longest], for each position of a text the index of its token among the packed tokens (beyond the text's end the
    index of any token); `token_places` INT64 [tokens], the position of each token in the flattened `token_rows`;
    `lengths` INT64 [batch], the number of tokens of each text.
    """

    def __init__(self, graph: ModelBuilder) -> None:
        self.sizes: tuple[str, ...] = ("tokens",)
        self.ids = graph.input("input_ids", TensorProto.INT64, *self.sizes)
        self._rows = graph.input("token_rows", TensorProto.INT64, "batch", "longest")
        self._places = graph.input("token_places", TensorProto.INT64, *self.sizes)
        lengths = graph.input("lengths", TensorProto.INT64, "batch")
        steps = steps_of(graph, self._rows)
        is_kept = graph.op("Less", steps, graph.op("Unsqueeze", lengths, graph.ints(1)))
        super().__init__(graph, graph.cast(is_kept, TensorProto.FLOAT), steps)

    def positions(self) -> str:
        """Implements `EncoderForm.positions`."""
        return self._graph.input("position_ids", TensorProto.INT64, *self.sizes)

    def types(self) -> str:
        """Implements `EncoderForm.types`."""
        return self._graph.input("token_type_ids", TensorProto.INT64, *self.sizes)

    def attend(self, query: str, key: str, value: str, *, num_heads: int, scale: float, bias: str | None = None) -> str:
        """Implements `EncoderForm.attend`."""
        query, key, value = (self._filled(each) for each in (query, key, value))
        wide = self._attend(query, key, value, num_heads, scale, bias)
        return self._graph.op("Gather", self._graph.op("Flatten", wide, axis=2), self._places)

    def first(self, hidden: str) -> str:
        """Implements `EncoderForm.first`."""
        zero = self._graph.number(0)
        return self._graph.op("Gather", hidden, self._graph.op("Gather", self._rows, zero, axis=1))

    def mean(self, hidden: str) -> str:
        """Implements `EncoderForm.mean`."""
        return self._mean(self._filled(hidden))

    def largest(self, hidden: str) -> str:
        """Implements `EncoderForm.largest`."""
        return self._largest(self._filled(hidden))

    def _filled(self, x: str) -> str:
        """Build padded rows [batch, longest, width] from packed tokens [tokens, width]."""
        return self._graph.op("Gather", x, self._rows)
