"""A decoder as a graph whose weights are inputs, so that other weights can be tried without loading it again."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from triune.compression.moments import Moments, Site, held_at_once
from triune.engine.models import write_model
from triune.engine.weights import Checkpoint, DenseTensor
from triune.graph.session import GraphSession

_JOIN: Final = " + "
"""The separator between the names of matrices that a graph multiplies as one matrix (`ModelBuilder.linears`)."""


class TextGraph:
    """A decoder without a cache, in fp32.

    Attributes:
        values: the weights that can be changed, fp32, by name: all matrices, and the vectors of norms and biases as the
            graph reads them (Gemma's norms with 1 added).
        changed: the functions that compute weights which are used instead of those in `values`, by the weights' names.
            Each run calls them, so that no second copy of the weights in fp32 is held between runs.
        sites: the matrix products, in the order in which they are computed.
    """

    def __init__(self, checkpoint: Checkpoint, num_tokens: int) -> None:
        """Write the graph.

        Args:
            checkpoint: a decoder. Its weights are unpacked to fp32.
            num_tokens: the largest number of tokens of a text.

        Raises:
            UnsupportedError: the architecture has no decoder.
        """
        held = write_model(checkpoint.config, _Unpacked(checkpoint), "plain", num_positions=num_tokens)
        self._model = ModelProto()
        self._model.CopyFrom(held.model)
        graph = self._model.graph
        self.values: Final[dict[str, NDArray[np.float32]]] = {}
        self.changed: dict[str, Callable[[], NDArray[np.float32]]] = {}
        self._inputs: list[str] = []
        kept: list[TensorProto] = []
        for tensor in graph.initializer:
            if not tensor.name.endswith((".weight", ".bias")):
                kept.append(numpy_helper.from_array(held.array(tensor), tensor.name))
                continue
            self._inputs.append(tensor.name)
            whole = held.array(tensor)
            begin = 0
            for name in _names(tensor.name):
                rows = checkpoint.shape(name)[0]
                self.values[name] = whole[begin : begin + rows]
                begin += rows
            graph.input.append(helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, list(tensor.dims)))
        del graph.initializer[:]
        graph.initializer.extend(kept)
        self.sites: Final[Sequence[Site]] = list(self._found_sites())
        self._session: Final = GraphSession(self._copy([]), "the model")

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """The logits after each token of a text, fp32 [tokens, vocabulary]."""
        found, _ = self._session.run(self._feed(tokens), {})
        return found["logits"][0]

    def moments(self, texts: Sequence[Sequence[int]]) -> Iterator[tuple[Site, Moments]]:
        """Yield the moments of the inputs of each matrix product (`Site`) on texts. Each pass over the texts measures
        as many products as a gigabyte of moments allows, so many products take several passes.
        """
        for part in held_at_once(self.sites):
            found = {site.value: Moments(site.width) for site in part}
            session = GraphSession(self._copy(list(found)), "the model")
            for tokens in texts:
                values, _ = session.run(self._feed(tokens), {})
                for name, sums in found.items():
                    sums.add(values[name])
            yield from ((site, found[site.value]) for site in part)

    def _feed(self, tokens: Sequence[int]) -> Mapping[str, NDArray[np.int64] | NDArray[np.float32]]:
        feed: dict[str, NDArray[np.int64] | NDArray[np.float32]] = {"input_ids": np.array([tokens], np.int64)}
        for name in self._inputs:
            feed[name] = self._joined(_names(name))
        return feed

    def _joined(self, names: Sequence[str]) -> NDArray[np.float32]:
        """The rows of the weights `names`, one below the other, as one matrix or vector."""
        if len(names) == 1:
            return self._present(names[0])
        shapes = [self.values[name].shape for name in names]
        whole = np.empty((sum(shape[0] for shape in shapes), *shapes[0][1:]), np.float32)
        begin = 0
        for name, shape in zip(names, shapes, strict=True):
            whole[begin : begin + shape[0]] = self._present(name)
            begin += shape[0]
        return whole

    def _present(self, name: str) -> NDArray[np.float32]:
        return self.changed[name]() if name in self.changed else self.values[name]

    def _copy(self, outputs: Sequence[str]) -> ModelProto:
        """A copy of the model with these outputs, or with its own outputs if none are given."""
        copy = ModelProto()
        copy.CopyFrom(self._model)
        if outputs:
            del copy.graph.output[:]
            copy.graph.output.extend(
                helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in dict.fromkeys(outputs)
            )
        return copy

    def _found_sites(self) -> Iterator[Site]:
        inputs = set(self._inputs)
        turned: dict[str, NodeProto] = {
            node.output[0]: node for node in self._model.graph.node if node.op_type == "Transpose"
        }
        for node in self._model.graph.node:
            transpose = turned.get(node.input[1]) if node.op_type == "MatMul" else None
            if transpose is None or transpose.input[0] not in inputs:
                continue
            names = tuple(_names(transpose.input[0]))
            yield Site(node.input[0], self.values[names[0]].shape[1], names)


class _Unpacked:
    """The tensors of a checkpoint as dense fp32."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def tensor(self, name: str) -> DenseTensor:
        tensor = self._checkpoint.tensor(name)
        return DenseTensor(tensor.dequantize(), tensor.form)


def _names(joined: str) -> list[str]:
    """The names of the tensors that an input of the graph consists of: "a + b.weight" is a.weight and b.weight."""
    whole, dot, kind = joined.rpartition(".")
    return [f"{name}{dot}{kind}" for name in whole.split(_JOIN)]
