"""Split a graph into pieces. Each piece is a model; run one after the other, they compute the same as the graph."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from onnx import GraphProto, ModelProto, TensorProto, TypeProto, ValueInfoProto

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.graph.by_values import RANDOM
from triune.graph.index import label
from triune.graph.values import Values, names_read_by


@dataclass(frozen=True)
class Piece:
    """A piece of a graph.

    Attributes:
        model: the piece as a model. Its large weights stay where they are, as external data: pieces that read the same
            weight refer to the same bytes.
        inputs: the values that it reads: inputs of the graph, and outputs of earlier pieces.
        outputs: the values that it computes for later pieces or for the graph's outputs.
        begin: the position in the graph at which it begins.
        nodes: the positions of the nodes that it computes, ascending. Nodes of constants alone are in every piece that
            reads their results, and are not counted.
    """

    model: ModelProto
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    begin: int
    nodes: tuple[int, ...]


def split(model: ModelProto, borders: Sequence[int], *, apart: Collection[int] = ()) -> list[Piece]:
    """Split a model before some of its nodes.

    Each piece takes the nodes between two borders, so that pieces run in their order. A value that passes a border is
    an output of the piece that computes it, and an input of every piece that reads it, in the bodies of If and Loop
    too. Its name, type and shape stay, with the names of free dimensions.

    Args:
        model: a normalized model (`graph.normalize`): nodes are in topological order, values have types, and inner
            graphs hide no outer names. It is not changed.
        borders: positions of nodes, ascending; a piece begins with each. The first piece begins with node 0.
        apart: positions of nodes that are in one piece only, even if they compute constants.

    Returns:
        the pieces, in order. One that would compute nothing that is read is left out.

    Raises:
        InvalidArgumentError: the borders are not ascending positions of nodes.
        UnsupportedError: what passes a border is not a tensor, or its type is not known.
    """
    count = len(model.graph.node)
    if any(not 0 < border < count for border in borders) or any(a >= b for a, b in pairwise(borders)):
        raise InvalidArgumentError(
            f"the borders of pieces are {list(borders)}; they must be ascending positions of nodes, 1 to {count - 1}"
        )
    return _Splitter(model, apart).pieces([0, *borders, count])


def constant_nodes(graph: GraphProto, apart: Collection[int] = ()) -> frozenset[int]:
    """The positions of nodes that compute constants, such as dequantized weights. The nodes of `apart` and their
    consumers are left out.
    """
    makers = {name: at for at, node in enumerate(graph.node) for name in node.output if name}
    given = {value.name for value in graph.input}
    found: set[int] = set()
    for at, node in enumerate(graph.node):
        reads = [name for name in names_read_by(node) if name in makers or name in given]
        if node.op_type not in RANDOM and at not in apart and all(makers.get(name) in found for name in reads):
            found.add(at)
    return frozenset(found)


class _Splitter:
    def __init__(self, model: ModelProto, apart: Collection[int]) -> None:
        self._model = model
        self._graph = model.graph
        self._values = Values(model.graph)
        self._given = {value.name: value for value in model.graph.input}
        self._reads = [names_read_by(node) for node in model.graph.node]
        self._makers = {name: at for at, node in enumerate(model.graph.node) for name in node.output if name}
        self._of_constants = constant_nodes(model.graph, apart)

    def pieces(self, ends: Sequence[int]) -> list[Piece]:
        results = {value.name for value in self._graph.output}
        # A value that no node computes, such as an input, may be an output of the graph. It belongs to the last piece.
        unmade = [value.name for value in self._graph.output if value.name not in self._makers]
        last_read = {name: at for at, names in enumerate(self._reads) for name in names}
        found: list[Piece] = []
        for begin, end in pairwise(ends):
            own = [at for at in range(begin, end) if at not in self._of_constants]
            given_back = [
                at
                for at in range(begin, end)
                if at in self._of_constants and results.intersection(self._graph.node[at].output)
            ]
            nodes = self._with_constants([*own, *given_back])
            made = {name for at in nodes for name in self._graph.node[at].output if name}
            outputs = [
                name
                for at in sorted([*own, *given_back])
                for name in self._graph.node[at].output
                if name and (name in results or (at in own and last_read.get(name, 0) >= end))
            ]
            if end == ends[-1]:
                outputs += unmade
            if outputs:
                found.append(self._piece(begin, nodes, own, made, outputs))
        return found

    def _with_constants(self, nodes: Iterable[int]) -> list[int]:
        """The positions in `nodes`, and those of the nodes that compute the constants that these nodes read."""
        found = set(nodes)
        waiting = list(found)
        while waiting:
            for name in self._reads[waiting.pop()]:
                maker = self._makers.get(name)
                if maker is not None and maker in self._of_constants and maker not in found:
                    found.add(maker)
                    waiting.append(maker)
        return sorted(found)

    def _piece(
        self, begin: int, nodes: Sequence[int], own: Sequence[int], made: set[str], outputs: Sequence[str]
    ) -> Piece:
        reads: dict[str, None] = {name: None for at in nodes for name in sorted(self._reads[at]) if name}
        reads.update(dict.fromkeys(name for name in outputs if name not in made))
        inputs = [name for name in self._given if name in reads]
        inputs += [name for name in self._makers if name in reads and name not in made]
        model = ModelProto(
            ir_version=self._model.ir_version,
            producer_name=self._model.producer_name,
            opset_import=self._model.opset_import,
            functions=self._model.functions,
        )
        graph = model.graph
        graph.name = self._graph.name
        graph.node.extend(self._graph.node[at] for at in nodes)
        graph.initializer.extend(each for each in self._graph.initializer if each.name in reads)
        graph.sparse_initializer.extend(each for each in self._graph.sparse_initializer if each.values.name in reads)
        graph.input.extend(self._given[name] if name in self._given else self._declared(name) for name in inputs)
        graph.output.extend(self._declared(name) for name in outputs)
        hidden = made.difference(outputs)
        graph.value_info.extend(each for each in self._graph.value_info if each.name in hidden)
        return Piece(model, tuple(inputs), tuple(outputs), begin, tuple(own))

    def _declared(self, name: str) -> ValueInfoProto:
        """The declaration of a value that passes a border.

        Raises:
            UnsupportedError: it is not a tensor of a known type.
        """
        kind = self._values.type(name)
        if kind is None or not _is_tensor(kind):
            maker = self._makers.get(name)
            what = f"'{name}', the result of {label(self._graph.node[maker])}," if maker is not None else f"'{name}'"
            problem = "has no known type" if kind is None else "is no tensor"
            raise UnsupportedError(f"the model cannot be cut where {what} passes: it {problem}; cut elsewhere")
        return ValueInfoProto(name=name, type=kind)


def _is_tensor(kind: TypeProto) -> bool:
    return kind.WhichOneof("value") == "tensor_type" and kind.tensor_type.elem_type != TensorProto.UNDEFINED
