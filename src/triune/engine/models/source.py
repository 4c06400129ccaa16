"""What a decoder reads of an encoder's output: cross-attention, in the forms of `forms`."""

from collections.abc import Callable, Sequence
from typing import Protocol

from onnx import TensorProto

from triune.core.errors import UnsupportedError
from triune.engine.models.attention import attend, mask_of, scores_of, steps_of
from triune.engine.models.builder import ModelBuilder
from triune.engine.models.forms import FormName


class Source(Protocol):
    """An encoder's output, one for each text."""

    def read(self, name: str, project: Callable[[str], str]) -> str:
        """The keys or the values of a layer, [batch, source tokens, heads * size]. `project` computes them from the
        encoder's output; `name` is what they are called as an input.
        """
        ...

    def attend(self, query: str, key: str, value: str, *, num_heads: int, scale: float) -> str:
        """Attention of [..., heads * size] to all of the text's keys and values, which `read` returned."""
        ...


class PlainSource:
    """The output itself, for whole sequences of equal length.

    Inputs: `encoder_hidden_states` FP32 [batch, source, width]; if texts are filled up to one length,
    `encoder_attention_mask` INT64 [batch, source] with 1 for each token.
    """

    def __init__(self, graph: ModelBuilder, width: int, *, is_masked: bool) -> None:
        self._graph = graph
        self._states = graph.input("encoder_hidden_states", TensorProto.FLOAT, "batch", "source", width)
        self._mask = ""
        if is_masked:
            mask = graph.input("encoder_attention_mask", TensorProto.INT64, "batch", "source")
            self._mask = mask_of(graph, graph.cast(mask, TensorProto.FLOAT))

    def read(self, name: str, project: Callable[[str], str]) -> str:
        """See `Source`."""
        return project(self._states)

    def attend(self, query: str, key: str, value: str, *, num_heads: int, scale: float) -> str:
        """See `Source`."""
        return attend(self._graph, query, key, value, num_heads=num_heads, scale=scale, added=self._mask)


class PagedSource:
    """Keys and values that were computed once for each sequence, for packed tokens of many sequences.

    Inputs: for each layer N `cross_key.N` and `cross_value.N` FP32 [sequences, source, heads * size], the
    `DecoderStep.memory`. The texts' sources are of one length.
    """

    def __init__(self, graph: ModelBuilder, width: int) -> None:
        self._graph = graph
        self._width = width
        begins = graph.cast("subsequence_begins", TensorProto.INT64)
        first = graph.op("Slice", begins, graph.ints(0), graph.ints(-1))
        ends = graph.op("Slice", begins, graph.ints(1), graph.ints(2**31 - 1))
        longest = graph.op("ReduceMax", graph.op("Sub", ends, first), keepdims=0)
        tokens = steps_of(graph, "input_ids", axis=0)
        # The tokens of each sequence, [sequences, longest]; beyond the end of one those of the next.
        steps = graph.op("Range", graph.number(0), longest, graph.number(1))
        rows = graph.op("Add", graph.op("Unsqueeze", first, graph.ints(1)), steps)
        last = graph.op("Sub", graph.op("Shape", "input_ids"), graph.ints(1))
        self._rows = graph.op("Min", rows, last)
        # The place of each token among them.
        is_behind = graph.op("GreaterOrEqual", graph.op("Unsqueeze", tokens, graph.ints(1)), ends)
        which = graph.op("ReduceSum", graph.cast(is_behind, TensorProto.INT64), graph.ints(1), keepdims=0)
        within = graph.op("Sub", tokens, graph.op("Gather", first, which))
        self._places = graph.op("Add", graph.op("Mul", which, longest), within)

    def read(self, name: str, project: Callable[[str], str]) -> str:
        """See `Source`."""
        return self._graph.input(name, TensorProto.FLOAT, "sequences", "source", self._width)

    def attend(self, query: str, key: str, value: str, *, num_heads: int, scale: float) -> str:
        """See `Source`."""
        filled = self._graph.op("Gather", query, self._rows)
        wide = attend(self._graph, filled, key, value, num_heads=num_heads, scale=scale)
        return self._graph.op("Gather", self._graph.op("Flatten", wide, axis=2), self._places)


class WatchedSource:
    """Keys and values that were computed once, for one whole text, and what some heads make of them.

    Inputs: for each layer N `cross_key.N` and `cross_value.N` FP32 [batch, source, heads * size].
    """

    def __init__(self, graph: ModelBuilder, width: int, heads: Sequence[tuple[int, int]]) -> None:
        """`heads`: the layers and heads to watch."""
        self._graph = graph
        self._width = width
        self._heads = heads
        self._scores: list[str] = []

    def read(self, name: str, project: Callable[[str], str]) -> str:
        """See `Source`."""
        return self._graph.input(name, TensorProto.FLOAT, "batch", "source", self._width)

    def attend(self, query: str, key: str, value: str, *, num_heads: int, scale: float) -> str:
        """See `Source`."""
        self._scores.append(scores_of(self._graph, query, key, num_heads=num_heads, scale=scale))
        return attend(self._graph, query, key, value, num_heads=num_heads, scale=scale)

    def scores(self) -> str:
        """The scores of the watched heads of a batch of one text, [watched heads, tokens, source]."""
        graph = self._graph
        found = [
            graph.op("Gather", graph.op("Gather", self._scores[layer], graph.ints(0)), graph.ints(head), axis=1)
            for layer, head in self._heads
        ]
        return graph.op("Squeeze", graph.op("Concat", *found, axis=1), graph.ints(0))


def source_of(name: FormName, graph: ModelBuilder, width: int, *, is_masked: bool) -> Source:
    """The source for a graph in this form. Declares the graph's inputs; the form has declared its own already.

    Raises:
        UnsupportedError: in the paged form, sources of different lengths are not masked.
    """
    if name == "paged" and is_masked:
        raise UnsupportedError("sources of different lengths have no paged form: take the plain one")
    return PagedSource(graph, width) if name == "paged" else PlainSource(graph, width, is_masked=is_masked)
