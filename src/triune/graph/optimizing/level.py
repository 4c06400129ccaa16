"""The levels of graph optimization."""

from enum import Enum


class Level(Enum):
    """How far a graph is rewritten; each level has the passes of those before it."""

    O0 = "O0"
    """Made valid, with the shapes that can be inferred; nothing is rewritten."""

    O1 = "O1"
    """Exact: the same numbers, by fewer nodes."""

    O2 = "O2"
    """Equal up to the rounding of fp32."""

    O3 = "O3"
    """Optimize for the runtimes of one unit."""

    @property
    def number(self) -> int:
        """0 to 3."""
        return int(self.value[1:])
