"""What a decoder reads of an encoder's output: cross-attention, in the forms of `forms`."""

from collections.abc import Callable
from typing import Protocol

from onnx import TensorProto

from triune.core.errors import UnsupportedError
from triune.engine.models.attention import attend, mask_of
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


def source_of(name: FormName, graph: ModelBuilder, width: int, *, is_masked: bool) -> Source:
    """The source for a graph in this form. Declares the graph's inputs.

    Raises:
        UnsupportedError: there is none for the form yet.
    """
    if name == "paged":
        raise UnsupportedError("a decoder that reads an encoder's output has no paged form yet; take the plain one")
    return PlainSource(graph, width, is_masked=is_masked)
