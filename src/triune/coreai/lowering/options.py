"""The options of a conversion to Core AI."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from triune.coreai.lowering.image_options import ImageOptions
from triune.graph.conversion.options import ConversionOptions


@dataclass(frozen=True, kw_only=True)
class LowerOptions(ConversionOptions):
    """The options of a conversion to Core AI. Dimensions without limits are free in the program.

    Attributes:
        states: inputs that become states of the program, such as KV caches, each with the output that is its next
            value.
        images: inputs and outputs that become images of the program; in the model they are floats of
            (1, 3, height, width).
        packs_weights: whether weights with few different values become look-up tables and those with many zeros sparse,
            without loss.
    """

    states: Mapping[str, str] = field(default_factory=dict[str, str])
    images: Mapping[str, ImageOptions] = field(default_factory=dict[str, ImageOptions])
    packs_weights: bool = False
