"""Functions of several stated shapes: a function of fixed shapes for each, `main_of_1x64`."""

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
"""The shape of each input that has several, by the end of the function's name: `of_1x64`."""


def ladder_of(interface: "Interface") -> Ladder:
    """The shapes that the user stated for a function, each with the shape of every input; empty if there is only one.

    Raises:
        InvalidArgumentError: inputs have different numbers of shapes.
    """
    given = {feature.name: feature.given for feature in interface.inputs if feature.given is not None}
    # Names in MLIR begin with a letter.
    return {
        LADDER[1:] + "_".join("x".join(map(str, each)) for each in shapes.values()): shapes
        for shapes in pairings_of(given)
    }


def with_shapes(options: LowerOptions, shapes: Mapping[str, tuple[Any, ...]]) -> LowerOptions:
    """Options with these fixed shapes of inputs."""
    fixed = {name: InputShape((shape,)) for name, shape in shapes.items()}
    return replace(options, shapes={**options.shapes, **fixed})
