"""Report in one run all nodes that cannot be converted, not only the first."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from onnx import NodeProto

from triune.core.errors import UnsupportedError


class Refusal(UnsupportedError):  # noqa: N818 - it is not an error of the program
    """No operations of the target compute exactly what a node computes. The message has the reason and the remedy."""


class MissingError(UnsupportedError):
    """An input of the node is missing: the node that computes it could not be converted, so that this node cannot be
    checked.
    """


_ORIGIN = "triune.origin"
"""The key in a node's metadata under which `note_origin` records what the node replaces."""

_WHY = "triune.why"
"""The key in a node's metadata under which `note_why` records a reason."""


def note_why(node: NodeProto, reason: str) -> None:
    """Record in a node the reason why passes could not replace it, for the conversion's report."""
    if noted_why(node) is None:
        node.metadata_props.add(key=_WHY, value=reason)


def noted_why(node: NodeProto) -> str | None:
    """The reason that `note_why` recorded in a node; None if there is none."""
    return next((each.value for each in node.metadata_props if each.key == _WHY), None)


def note_origin(nodes: Iterable[NodeProto], origin: NodeProto) -> None:
    """Record the original node of the model in the nodes that replace it, so that errors name the original, as `called`
    does.
    """
    for node in nodes:
        node.metadata_props.add(key=_ORIGIN, value=called(origin))


def noted_origin(node: NodeProto) -> str | None:
    """What `note_origin` recorded in a node: `domain:Op 'name'`; None if there is nothing."""
    return next((each.value for each in node.metadata_props if each.key == _ORIGIN), None)


@dataclass(frozen=True, slots=True)
class Problem:
    """A node that cannot be converted.

    Attributes:
        node: the operator and the name: `Op 'name'`.
        reason: why it cannot be converted, and the remedy.
    """

    node: str
    reason: str


def called(node: NodeProto) -> str:
    """The operator and name of a node, for messages: `domain:Op 'name'`."""
    domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}:"
    return f"{domain}{node.op_type} '{node.name or next(filter(None, node.output), '')}'"


def require_none(problems: Sequence[Problem], target: str) -> None:
    """Raise an UnsupportedError that lists all problems, if there are any. `target` is the target's name: "Core ML"."""
    if not problems:
        return
    if len(problems) == 1:
        raise UnsupportedError(f"1 node cannot be converted to {target}: {problems[0].node}: {problems[0].reason}")
    lines = "\n".join(f"  {problem.node}: {problem.reason}" for problem in problems)
    raise UnsupportedError(f"{len(problems)} nodes cannot be converted to {target}:\n{lines}")
