"""Cross-attention to an encoder's output, for each form of a decoder's graph (`forms`)."""

from collections.abc import Callable, Sequence
from typing import Protocol

from onnx import TensorProto

from triune.engine.models.attention import attend, mask_of, scores_of
from triune.engine.models.builder import ModelBuilder
from triune.engine.models.forms import FormName


class Source(Protocol):
    """The output of an encoder, to which a decoder attends: one sequence for each text."""

    def read(self, name: str, project: Callable[[str], str]) -> str:
        """The keys or the values of a layer, [batch, source tokens, heads * size]. `project` computes them from the
        encoder's output; if they are an input of the graph instead, `name` is the input's name.
        """
        ...

    def attend(self, query: str, key: str, value: str, *, num_heads: int, scale: float) -> str:
        """Build the attention of queries [..., heads * size] to all of the text's keys and values, which `read`
        returned.
        """
        ...


class PlainSource:
    """The encoder's output as an input of the graph, for whole sequences of equal length.

    Inputs: `encoder_hidden_states` FP32 [batch, source, width]; if texts are padded to one length,
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
        """Implements `Source.read`."""
        return project(self._states)

    def attend(self, query: str, key: str, value: str, *, num_heads: int, scale: float) -> str:
        """Implements `Source.attend`."""
        return attend(self._graph, query, key, value, num_heads=num_heads, scale=scale, added=self._mask)


class PagedSource:
    """Cross-attention of packed tokens of many sequences, over keys and values that were computed once for each
    sequence.

    Inputs: for each layer N `cross_key.N` and `cross_value.N` FP32 [sequences, source, heads * size], the
    `DecoderStep.memory`; if the texts' sources may be of different lengths, also `cross_mask` FP32 [sequences, source,
    1] with 1 for each token of the source, and 0 for padding; `token_rows` and `token_places` as `core.step_rows` says.
    """

    def __init__(self, graph: ModelBuilder, width: int, *, is_masked: bool) -> None:
        """`width` is heads * size, the width of keys and values. `is_masked` says whether there is a `cross_mask`."""
        self._graph = graph
        self._width = width
        self._rows = graph.input("token_rows", TensorProto.INT64, "sequences", "longest")
        self._places = graph.input("token_places", TensorProto.INT64, "tokens")
        self._mask = ""
        if is_masked:
            mask = graph.input("cross_mask", TensorProto.FLOAT, "sequences", "source", 1)
            self._mask = mask_of(graph, graph.op("Squeeze", mask, graph.ints(2)))

    def read(self, name: str, project: Callable[[str], str]) -> str:
        """Implements `Source.read`."""
        return self._graph.input(name, TensorProto.FLOAT, "sequences", "source", self._width)

    def attend(self, query: str, key: str, value: str, *, num_heads: int, scale: float) -> str:
        """Implements `Source.attend`."""
        filled = self._graph.op("Gather", query, self._rows)
        wide = attend(self._graph, filled, key, value, num_heads=num_heads, scale=scale, added=self._mask)
        return self._graph.op(
            "Gather", self._graph.op("Reshape", wide, self._graph.ints(-1, self._width)), self._places
        )


class WatchedSource:
    """Cross-attention over given keys and values of one whole text. The scores of some heads are outputs of the graph.

    Inputs: for each layer N `cross_key.N` and `cross_value.N` FP32 [batch, source, heads * size].
    """

    def __init__(self, graph: ModelBuilder, width: int, heads: Sequence[tuple[int, int]]) -> None:
        """`heads` has the pairs (layer, head) whose scores are recorded."""
        self._graph = graph
        self._width = width
        self._heads = heads
        self._scores: list[str] = []

    def read(self, name: str, project: Callable[[str], str]) -> str:
        """Implements `Source.read`."""
        return self._graph.input(name, TensorProto.FLOAT, "batch", "source", self._width)

    def attend(self, query: str, key: str, value: str, *, num_heads: int, scale: float) -> str:
        """Implements `Source.attend`."""
        self._scores.append(scores_of(self._graph, query, key, num_heads=num_heads, scale=scale))
        return attend(self._graph, query, key, value, num_heads=num_heads, scale=scale)

    def scores(self) -> str:
        """The scores of the recorded heads, for a batch of one text: [recorded heads, tokens, source]."""
        graph = self._graph
        found = [
            graph.op("Gather", graph.op("Gather", self._scores[layer], graph.ints(0)), graph.ints(head), axis=1)
            for layer, head in self._heads
        ]
        return graph.op("Squeeze", graph.op("Concat", *found, axis=1), graph.ints(0))


def source_of(
    name: FormName, graph: ModelBuilder, width: int, *, is_masked: bool, num_attended: int | None = None
) -> Source:
    """Create the source for a graph in this form. It declares further inputs of the graph; the form must have declared
    its own before.

    Args:
        name: the form.
        graph: the graph.
        width: the width of the encoder's output.
        is_masked: whether sources may be of different lengths.
        num_attended: the width of keys and values, heads * size; None if it equals `width`.
    """
    if name == "paged":
        return PagedSource(graph, num_attended or width, is_masked=is_masked)
    return PlainSource(graph, width, is_masked=is_masked)
