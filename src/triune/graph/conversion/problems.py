"""What cannot be converted: all of it is found and told in one run."""

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import NodeProto

from triune.core.errors import UnsupportedError


class Refusal(UnsupportedError):  # noqa: N818 - it is no failure of the program
    """A node cannot be expressed exactly. The message is the reason, and what to do."""


class MissingError(UnsupportedError):
    """A value could not be made, and nothing is known of its shape: what reads it cannot be judged."""


_WHY = "triune.why"
"""The key of a node's metadata under which the reason is why it was left."""


def note_why(node: NodeProto, reason: str) -> None:
    """Note on the node why it cannot be expressed, for whom it reaches in the end."""
    if noted_why(node) is None:
        node.metadata_props.add(key=_WHY, value=reason)


def noted_why(node: NodeProto) -> str | None:
    """The reason that was noted; None where there is none."""
    return next((each.value for each in node.metadata_props if each.key == _WHY), None)


@dataclass(frozen=True, slots=True)
class Problem:
    """A node that cannot be converted.

    Attributes:
        node: `Op 'name'`.
        reason: why, and what to do.
    """

    node: str
    reason: str


def called(node: NodeProto) -> str:
    """A node as a report names it: `domain:Op 'name'`."""
    domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}:"
    return f"{domain}{node.op_type} '{node.name or node.output[0]}'"


def require_none(problems: Sequence[Problem], target: str) -> None:
    """Raises UnsupportedError with every problem, where there are any. `target` is what was to be made: "Core ML"."""
    if not problems:
        return
    if len(problems) == 1:
        raise UnsupportedError(f"1 node cannot be converted to {target}: {problems[0].node}: {problems[0].reason}")
    told = "\n".join(f"  {problem.node}: {problem.reason}" for problem in problems)
    raise UnsupportedError(f"{len(problems)} nodes cannot be converted to {target}:\n{told}")
