"""Problems of a conversion: all nodes that cannot be converted are found and reported in one run."""

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import NodeProto

from triune.core.errors import UnsupportedError


class Refusal(UnsupportedError):  # noqa: N818 - it is not an error of the program
    """A node cannot be expressed exactly. The message is the reason and the remedy."""


class MissingError(UnsupportedError):
    """A value could not be made and its shape is unknown, so nothing can be said of the nodes that read it."""


_WHY = "triune.why"
"""The key of a node's metadata that holds the reason why no pass could express the node."""


def note_why(node: NodeProto, reason: str) -> None:
    """Record in the node why it cannot be expressed, for the conversion that later meets it."""
    if noted_why(node) is None:
        node.metadata_props.add(key=_WHY, value=reason)


def noted_why(node: NodeProto) -> str | None:
    """The reason that `note_why` recorded; None if there is none."""
    return next((each.value for each in node.metadata_props if each.key == _WHY), None)


@dataclass(frozen=True, slots=True)
class Problem:
    """A node that cannot be converted.

    Attributes:
        node: `Op 'name'`.
        reason: the reason and the remedy.
    """

    node: str
    reason: str


def called(node: NodeProto) -> str:
    """The name of a node in reports: `domain:Op 'name'`."""
    domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}:"
    return f"{domain}{node.op_type} '{node.name or node.output[0]}'"


def require_none(problems: Sequence[Problem], target: str) -> None:
    """Raise one UnsupportedError with all problems, if there are any. `target` is the target's name: "Core ML"."""
    if not problems:
        return
    if len(problems) == 1:
        raise UnsupportedError(f"1 node cannot be converted to {target}: {problems[0].node}: {problems[0].reason}")
    told = "\n".join(f"  {problem.node}: {problem.reason}" for problem in problems)
    raise UnsupportedError(f"{len(problems)} nodes cannot be converted to {target}:\n{told}")
