"""The levels of graph optimization: which passes run at which level, in which order, and why."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from triune.core.units import Unit
from triune.graph.passes.branches import Branches
from triune.graph.passes.casts import Casts
from triune.graph.passes.common import Common
from triune.graph.passes.fold import Fold
from triune.graph.passes.narrow_indices import NarrowIndices
from triune.graph.passes.neutral import Neutral
from triune.graph.passes.reshapes import Reshapes
from triune.graph.passes.run import GraphPass
from triune.graph.passes.tidy import Tidy
from triune.graph.passes.transposes import Transposes
from triune.graph.weight_files import WeightFile


class Level(Enum):
    """How far a graph is rewritten; each level has the passes of those before it."""

    O0 = "O0"
    """Made valid, with the shapes that can be inferred; nothing is rewritten."""

    O1 = "O1"
    """Exact: the same numbers, by fewer nodes."""

    O2 = "O2"
    """Equal up to the rounding of fp32."""

    O3 = "O3"
    """For one unit: what its runtimes gain from."""

    @property
    def number(self) -> int:
        """0 to 3."""
        return int(self.value[1:])


@dataclass(frozen=True, slots=True)
class Given:
    """What a pass may need to know.

    Attributes:
        opset: the version of ONNX's operator set that the model imports.
        unit: the unit for which the model is optimized.
        file: the scratch file for new large weights.
    """

    opset: int
    unit: Unit
    file: WeightFile


@dataclass(frozen=True, slots=True)
class Step:
    """A pass in the list of a level.

    Attributes:
        name: its name in reports.
        what: what it does, in words.
        why_here: the reason of its place in the order.
        level: the first level that has it.
        make: makes the pass.
        units: the units for which it runs; all without any.
    """

    name: str
    what: str
    why_here: str
    level: Level
    make: Callable[[Given], GraphPass]
    units: frozenset[Unit] = frozenset()

    def is_for(self, level: Level, unit: Unit) -> bool:
        """Whether the pass runs at a level for a unit."""
        return self.level.number <= level.number and (not self.units or unit in self.units)


STEPS: Final[Sequence[Step]] = (
    Step(
        "tidy",
        "dead nodes, unused initializers and Identities removed; Constants become initializers",
        "first, so that the others see constants as initializers and no node that nothing reads",
        Level.O1,
        lambda given: Tidy(),
    ),
    Step(
        "fold",
        "nodes of constants, and shapes that are known, computed",
        "before all that look for constants",
        Level.O1,
        lambda given: Fold(given.opset, grows=False),
    ),
    Step(
        "branches",
        "an If with a constant condition replaced by the branch that is taken",
        "after fold, which may have made the condition constant",
        Level.O1,
        lambda given: Branches(),
    ),
    Step(
        "neutral",
        "nodes that hand on their operand removed: x * 1, Dropout, Casts and Reshapes that change nothing",
        "after fold, which shows the constants 1 and 0; before the patterns, which such nodes would interrupt",
        Level.O1,
        lambda given: Neutral(),
    ),
    Step(
        "casts",
        "Casts of Casts joined",
        "beside neutral, which removes what is left of a pair",
        Level.O1,
        lambda given: Casts(),
    ),
    Step(
        "reshapes",
        "Reshapes of Reshapes joined, computed shapes written as constants where they are known",
        "after fold, which has computed the shapes without symbols; before transposes, between which Reshapes stand",
        Level.O1,
        lambda given: Reshapes(),
    ),
    Step(
        "transposes",
        "Transposes of Transposes joined, or cancelled",
        "after neutral and reshapes, which bring them next to each other",
        Level.O1,
        lambda given: Transposes(),
    ),
    Step(
        "narrow_indices",
        "indices of int64 read in int32 where they fit",
        "after fold, which makes constants of computed indices",
        Level.O1,
        lambda given: NarrowIndices(),
    ),
    Step(
        "common",
        "equal nodes computed once, equal constants stored once",
        "last of the exact ones: equal nodes are alike once their operands are, and the others make them alike",
        Level.O1,
        lambda given: Common(),
    ),
)
"""The passes of all levels, in order. They repeat until none of them changes anything more."""


def steps_of(level: Level, unit: Unit) -> Sequence[Step]:
    """The passes of a level for a unit, in order."""
    return [each for each in STEPS if each.is_for(level, unit)]
