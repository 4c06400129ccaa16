"""If a model is given several shapes, convert it to a function of fixed shapes for each of them, such as
`main_of_1x64`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from triune.coreai.lowering.options import LowerOptions
from triune.graph.conversion.pairings import pairings_of
from triune.graph.conversion.shapes import InputShape

if TYPE_CHECKING:
    from triune.coreai.lowering.interface import Interface

LADDER = "_of_"
"""The separator between a function's name and the shapes for which a variant of it was converted."""

Ladder: TypeAlias = Mapping[str, Mapping[str, tuple[Any, ...]]]
"""The shapes of the inputs that have several, for each variant of a function, by the ending of the variant's name
(such as `of_1x64`).
"""


def ladder_of(interface: "Interface") -> Ladder:
    """For each variant of a function, the shapes of inputs for which it is converted, by the ending of its name
    (`Ladder`).

    The variants are those that the user asked for by stating several shapes of inputs. Without such shapes there are
    none.

    Raises:
        InvalidArgumentError: inputs have different numbers of shapes.
    """
    given = {feature.name: feature.given for feature in interface.inputs if feature.given is not None}
    # The ending of a variant's name begins with "of" (`of_1x64`): Core AI takes the ending alone as the name of the set
    # of shapes, and a name in MLIR must begin with a letter.
    return {
        LADDER[1:] + "_".join("x".join(map(str, each)) for each in shapes.values()): shapes
        for shapes in pairings_of(given)
    }


def with_shapes(options: LowerOptions, shapes: Mapping[str, tuple[Any, ...]]) -> LowerOptions:
    """Options with these fixed shapes of inputs."""
    fixed = {name: InputShape((shape,)) for name, shape in shapes.items()}
    return replace(options, shapes={**options.shapes, **fixed})
