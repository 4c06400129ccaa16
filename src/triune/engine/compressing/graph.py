"""A decoder as a graph that is computed layer by layer, with weights that are read when their layer needs them."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from triune.compression.moments import Moments, Site, held_at_once
from triune.compression.observer import with_outputs
from triune.engine.models import write_model
from triune.engine.weights import Checkpoint, DenseTensor
from triune.engine.weights.tensors import Placeholder
from triune.graph.passes.infer import Infer
from triune.graph.session import GraphSession
from triune.graph.split import Piece, split

_LAYER: Final = re.compile(r"\.layers\.(\d+)\.")

Values = dict[str, NDArray[Any]]


class TextGraph:
    """A decoder without a cache, in fp32.

    The graph is cut into pieces: the embedding, each layer, and the logits. A piece computes all texts before the next
    one does, so that the weights of one layer alone are in memory in fp32.

    Attributes:
        shapes: the shapes of the weights that can be changed, by name: of all matrices, and of the vectors of norms and
            biases.
        changed: the functions that compute weights which are used instead of the checkpoint's, by the weights' names.
        sites: the matrix products, in the order in which they are computed.
    """

    def __init__(self, checkpoint: Checkpoint, num_tokens: int) -> None:
        """Write the graph.

        Args:
            checkpoint: a decoder. Its matrices are unpacked to fp32 when they are needed.
            num_tokens: the largest number of tokens of a text.

        Raises:
            UnsupportedError: the architecture has no decoder.
        """
        held = write_model(checkpoint.config, _Unread(checkpoint), "plain", num_positions=num_tokens)
        model = ModelProto()
        model.CopyFrom(held.model)
        graph = model.graph
        self.shapes: Final[dict[str, tuple[int, ...]]] = {}
        self.changed: dict[str, Callable[[], NDArray[np.float32]]] = {}
        self._checkpoint = checkpoint
        self._vectors: dict[str, NDArray[np.float32]] = {}
        kept: list[TensorProto] = []
        for tensor in graph.initializer:
            if not tensor.name.endswith((".weight", ".bias")):
                kept.append(numpy_helper.from_array(held.array(tensor), tensor.name))
                continue
            shape = tuple(tensor.dims)
            self.shapes[tensor.name] = shape
            if len(shape) < 2:
                self._vectors[tensor.name] = held.array(tensor)
            graph.input.append(helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, shape))
        del graph.initializer[:]
        graph.initializer.extend(kept)
        model = Infer()(model)
        self.sites: Final[Sequence[Site]] = self._found_sites(model)
        self._pieces: Final[Sequence[Piece]] = split(model, self._borders(model))

    def weight(self, name: str) -> NDArray[np.float32]:
        """A weight of the source, FP32, read at each call: a matrix [out, in], or a vector as the graph reads it
        (Gemma's norms with 1 added).
        """
        if name in self._vectors:
            return self._vectors[name]
        return self._checkpoint.tensor(name).dequantize()

    def logits(self, texts: Sequence[Sequence[int]]) -> Iterator[NDArray[np.float32]]:
        """Yield the logits after each token of each text, FP32 [tokens, vocabulary]."""
        texts_values = [self._begin(tokens) for tokens in texts]
        for piece in self._pieces[:-1]:
            for _ in self._run(piece, piece.outputs, texts_values):
                pass
        for found in self._run(self._pieces[-1], self._pieces[-1].outputs, texts_values):
            yield found["logits"][0]

    def moments(self, texts: Sequence[Sequence[int]]) -> Iterator[tuple[Site, Moments]]:
        """Yield the moments of the inputs of each matrix product (`Site`) on texts. A piece is computed as often as a
        gigabyte of moments requires.
        """
        texts_values = [self._begin(tokens) for tokens in texts]
        for piece in self._pieces:
            made = {*piece.inputs, *(name for node in piece.model.graph.node for name in node.output)}
            own = [site for site in self.sites if site.value in made and {*piece.inputs}.intersection(site.weights)]
            parts = list(held_at_once(own)) or [[]]
            for part in parts:
                found = {site.value: Moments(site.width) for site in part}
                is_last = part is parts[-1]
                # The logits are not needed, and take much memory.
                passed = [name for name in piece.outputs if is_last and name != "logits"]
                wanted = list(dict.fromkeys([*passed, *found]))
                if not wanted:
                    continue
                for values in self._run(piece, wanted, texts_values, keeps=passed, is_last=is_last):
                    for name, sums in found.items():
                        sums.add(values[name])
                yield from ((site, found[site.value]) for site in part)

    def _begin(self, tokens: Sequence[int]) -> Values:
        return {"input_ids": np.array([tokens], np.int64)}

    def _run(
        self,
        piece: Piece,
        outputs: Sequence[str],
        texts: Sequence[Values],
        *,
        keeps: Sequence[str] | None = None,
        is_last: bool = True,
    ) -> Iterator[Mapping[str, NDArray[Any]]]:
        """Compute a piece for each text, and yield the outputs.

        Args:
            piece: the piece.
            outputs: the names of its values to compute, or of its inputs.
            texts: for each text, the values so far by name. They are changed: `keeps` are added, and if `is_last`,
                values that no later piece reads are removed.
            keeps: the outputs that later pieces read; None for all.
            is_last: whether the piece is not run again.
        """
        weights = {name: self._present(name) for name in piece.inputs if name in self.shapes}
        computed = [name for name in outputs if name not in piece.inputs]
        # A session of its own for each run: the memory of many open ones would add up.
        session = GraphSession(with_outputs(piece.model, computed), "the model") if computed else None
        at = self._pieces.index(piece)
        later = {name for each in self._pieces[at + 1 :] for name in each.inputs}
        for values in texts:
            given = {name: values[name] for name in piece.inputs if name in values}
            found: Values = {} if session is None else session.run({**weights, **given}, {})[0]
            yield {**{name: given[name] for name in outputs if name in given}, **found}
            values.update((name, each) for name, each in found.items() if keeps is None or name in keeps)
            if is_last:
                for name in [name for name in values if name not in later]:
                    del values[name]

    def _present(self, name: str) -> NDArray[np.float32]:
        return self.changed[name]() if name in self.changed else self.weight(name)

    def _found_sites(self, model: ModelProto) -> list[Site]:
        turned: dict[str, NodeProto] = {
            node.output[0]: node for node in model.graph.node if node.op_type == "Transpose"
        }
        names: dict[str, list[str]] = {}
        for node in model.graph.node:
            transpose = turned.get(node.input[1]) if node.op_type == "MatMul" else None
            if transpose is not None and transpose.input[0] in self.shapes:
                names.setdefault(node.input[0], []).append(transpose.input[0])
        return [Site(value, self.shapes[each[0]][1], tuple(each)) for value, each in names.items()]

    def _borders(self, model: ModelProto) -> list[int]:
        """The positions of the first nodes of each layer, and of what follows the last one."""
        found: list[int] = []
        present: str | None = None
        for at, node in enumerate(model.graph.node):
            for name in node.input:
                if name in self.shapes:
                    match = _LAYER.search(name)
                    layer = match[1] if match else ""
                    if present is not None and layer != present and (not found or found[-1] < at):
                        found.append(at)
                    present = layer
        return found


class _Unread:
    """The tensors of a checkpoint as dense fp32: vectors as they are, and placeholders for matrices."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def tensor(self, name: str) -> DenseTensor:
        shape = self._checkpoint.shape(name)
        if len(shape) == 2:
            return Placeholder(np.zeros(shape, np.float32), "F32")
        tensor = self._checkpoint.tensor(name)
        return DenseTensor(tensor.dequantize(), tensor.form)
