"""The levels of graph optimization."""

from enum import Enum


class Level(Enum):
    """How far a graph is rewritten. Each level has its own passes and those of all lower levels."""

    O0 = "O0"
    """The graph is made valid, and shapes are inferred where possible; nothing is rewritten."""

    O1 = "O1"
    """Fewer nodes compute exactly the same numbers."""

    O2 = "O2"
    """Fewer nodes compute results that are equal up to the rounding of fp32."""

    O3 = "O3"
    """The graph is also rewritten into what the runtimes of the chosen unit compute faster."""

    @property
    def number(self) -> int:
        """The number of the level, from 0 to 3."""
        return int(self.value[1:])
