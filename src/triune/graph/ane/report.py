"""The report of the nodes that passes bring into the layout, and of those that they leave and why."""

from collections import Counter
from dataclasses import dataclass, field

LINEAR_TO_CONV = "linear_to_conv"
"""The pass that converts linear layers: the layout is used only if it converted one."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a pass did with one node.

    Attributes:
        step: the name of the pass.
        node: its operator and name.
        text: what was changed, or why the node was left.
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

    def change(self, step: str, node: str, text: str) -> None:
        """Record that a node was changed."""
        self.changed.append(Entry(step, node, text))

    def leave(self, step: str, node: str, text: str) -> None:
        """Record that a node that resembles a pattern was left as it is."""
        self.left.append(Entry(step, node, text))

    @property
    def num_layers(self) -> int:
        """The number of linear layers in the layout. If it is 0, the layout is not used at all."""
        return self.counts().get(LINEAR_TO_CONV, 0)

    def counts(self) -> dict[str, int]:
        """The number of changes by pass."""
        return dict(Counter(entry.step for entry in self.changed))

    def __str__(self) -> str:
        done = ", ".join(f"{step} {count}" for step, count in self.counts().items()) or "nothing"
        lines = [f"changed: {done}", *(f"left: {entry}" for entry in self.left)]
        return "\n".join(lines)
