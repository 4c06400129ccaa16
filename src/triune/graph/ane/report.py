"""A report of the nodes that passes brought into the layout, and of those that they left and why."""

from collections import Counter
from dataclasses import dataclass, field

LINEAR_TO_CONV = "linear_to_conv"
"""The name of the pass without which there is no layout."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a pass did with one node.

    Attributes:
        step: the pass.
        node: its operator and name.
        text: what was done, or why nothing was.
    """

    step: str
    node: str
    text: str

    def __str__(self) -> str:
        return f"{self.step}: {self.node}: {self.text}"


@dataclass(slots=True)
class Report:
    """Filled by the passes, in their order."""

    changed: list[Entry] = field(default_factory=list[Entry])
    left: list[Entry] = field(default_factory=list[Entry])

    def change(self, step: str, node: str, text: str) -> None:
        """A node was changed."""
        self.changed.append(Entry(step, node, text))

    def leave(self, step: str, node: str, text: str) -> None:
        """A node that resembles a pattern was left as it is."""
        self.left.append(Entry(step, node, text))

    @property
    def num_layers(self) -> int:
        """How many linear layers are in the layout; with none it is not used at all."""
        return self.counts().get(LINEAR_TO_CONV, 0)

    def counts(self) -> dict[str, int]:
        """How many changes each pass made."""
        return dict(Counter(entry.step for entry in self.changed))

    def __str__(self) -> str:
        done = ", ".join(f"{step} {count}" for step, count in self.counts().items()) or "nothing"
        lines = [f"changed: {done}", *(f"left: {entry}" for entry in self.left)]
        return "\n".join(lines)
