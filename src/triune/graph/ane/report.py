"""Reports which nodes the passes for the Neural Engine changed, and which similar nodes they did not change, and
why.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

LINEAR_TO_CONV = "linear_to_conv"
"""The name of the pass that converts linear layers. If it converts none, the whole model stays as it was."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The action of a pass on one node of the graph.

    Attributes:
        step: the name of the pass.
        node: the operator and the name of the node.
        text: how the node was changed, or why it was not.
    """

    step: str
    node: str
    text: str

    def __str__(self) -> str:
        return f"{self.step}: {self.node}: {self.text}"


@dataclass(slots=True)
class Report:
    """The entries of all passes, in the order of the passes."""

    changed: list[Entry] = field(default_factory=list[Entry])
    left: list[Entry] = field(default_factory=list[Entry])

    @classmethod
    def of(cls, reports: Iterable["Report"]) -> "Report":
        """The entries of several graphs in one report."""
        given = list(reports)
        return cls([each for one in given for each in one.changed], [each for one in given for each in one.left])

    def change(self, step: str, node: str, text: str) -> None:
        """Record that a node was changed."""
        self.changed.append(Entry(step, node, text))

    def leave(self, step: str, node: str, text: str) -> None:
        """Record that a node that resembles a pattern was not changed."""
        self.left.append(Entry(step, node, text))

    @property
    def num_layers(self) -> int:
        """The number of linear layers that became convolutions. If it is 0, the whole model stays as it was."""
        return self.counts().get(LINEAR_TO_CONV, 0)

    def counts(self) -> dict[str, int]:
        """The number of nodes that each pass changed, by the pass's name."""
        return dict(Counter(entry.step for entry in self.changed))

    def __str__(self) -> str:
        done = ", ".join(f"{step} {count}" for step, count in self.counts().items()) or "nothing"
        lines = [f"changed: {done}", *(f"left: {entry}" for entry in self.left)]
        return "\n".join(lines)
