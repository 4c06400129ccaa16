"""Sessions for models whose custom operators numpy computes."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from onnx import ModelProto

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError
from triune.graph.custom.collection import CustomOps
from triune.graph.custom.resolve import numpy_nodes
from triune.graph.custom.stages import NumpyFunctionError, RunPiece, Stages
from triune.graph.session import GraphSession
from triune.graph.split import Piece


class Session(Protocol):
    """Runs a model without states."""

    def run(
        self, inputs: Mapping[str, Array], states: Mapping[str, Array], /
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Compute the outputs by name; `states` is empty, and so is the second result: see `GraphSession.run`."""
        ...


def session_of(model: ModelProto, name: str, ops: CustomOps, *, optimizes: bool = True) -> Session:
    """A session for a model: ONNX Runtime computes it, and numpy the custom operators without a body.

    Args:
        model: changed: its large weights may be removed.
        name: the model's name in messages: "the model".
        ops: the custom operators.
        optimizes: whether ONNX Runtime optimizes the graph, or runs its nodes one by one as they are.

    Raises:
        InvalidArgumentError: a node does not fit its numpy function.
        UnsupportedError: ONNX Runtime cannot load the graph, or a node for numpy is in a branch, a loop or a function.
    """
    by_numpy = numpy_nodes(model, ops) if ops.ops else []
    if not by_numpy:
        return GraphSession(model, name, optimizes=optimizes, libraries=ops.libraries)
    return _NumpySession(model, name, ops, by_numpy, optimizes=optimizes)


class _NumpySession:
    """A model that is cut at the operators that numpy computes."""

    def __init__(
        self, model: ModelProto, name: str, ops: CustomOps, by_numpy: Sequence[int], *, optimizes: bool
    ) -> None:
        """`by_numpy` has the positions of the nodes that numpy computes. For the rest see `session_of`."""
        self._outputs: Sequence[str] = [value.name for value in model.graph.output]
        self._name = name

        def compile_piece(piece: Piece) -> RunPiece:
            session = GraphSession(piece.model, name, optimizes=optimizes, libraries=ops.libraries)
            return lambda given: session.run(given, {})[0]

        self._stages = Stages(model, ops, by_numpy, compile_piece)

    def run(
        self, inputs: Mapping[str, Array], states: Mapping[str, Array], /
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Compute the outputs: see `Session.run`.

        Raises:
            InvalidArgumentError: a node or a numpy function cannot compute with these values.
            InternalError: a numpy function gives results of another type than its operator states.
        """
        try:
            return self._stages.run(inputs, self._outputs), {}
        except NumpyFunctionError as error:
            raise InvalidArgumentError(f"{self._name}: {error}") from error
