"""Refuse models that contradict themselves: whose attributes, constants and shapes do not fit together."""

import itertools
from collections.abc import Iterable

from onnx import ModelProto, NodeProto

from triune.core.errors import InvalidArgumentError
from triune.graph.contradictions import contradictions
from triune.graph.conversion.problems import noted_origin
from triune.graph.passes.run import GraphPass

_MOST_NAMED = 8
"""The most nodes that an error message names."""


class Consistent(GraphPass):
    """Given nodes whose attributes, constants and shapes contradict each other. Result: an error that names them.

    So later passes need not check for invalid nodes, which they might turn into valid ones with another meaning.
    """

    name = "consistent"

    def __init__(self, *, in_bodies: bool) -> None:
        """`in_bodies` is whether to look into the bodies of If, Loop and Scan as well, after `Branches`."""
        self._in_bodies = in_bodies

    def __call__(self, model: ModelProto) -> ModelProto:
        """Returns `model`.

        Raises:
            InvalidArgumentError: no runtime can compute some nodes; the message names each and says why.
        """
        require_none(itertools.islice(contradictions(model.graph, in_bodies=self._in_bodies), _MOST_NAMED))
        return model


def require_none(found: Iterable[tuple[NodeProto, str]]) -> None:
    """Raise an InvalidArgumentError that lists these nodes and their contradictions, if there are any."""
    # Remove equal messages: nodes that replace the same node of the user's model have its name.
    told = list(dict.fromkeys(f"{_called(node)}: {why}" for node, why in found))
    if told:
        text = told[0] if len(told) == 1 else "".join(f"\n  {each}" for each in told) + "\n"
        raise InvalidArgumentError(
            f"the model is not valid ONNX, and no runtime can compute it: {text}; correct it, or the shapes and "
            "constants that are given for its inputs"
        )


def _called(node: NodeProto) -> str:
    return noted_origin(node) or f"{node.op_type} '{node.name or next(filter(None, node.output), '')}'"
