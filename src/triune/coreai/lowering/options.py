"""What a user may say about a conversion to Core AI."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from triune.graph.conversion.options import ConversionOptions


@dataclass(frozen=True, kw_only=True)
class LowerOptions(ConversionOptions):
    """How to convert: see `ConversionOptions`. Dimensions without limits are free in the program.

    Attributes:
        states: inputs that become state of the program, each with the output that is its next value: KV caches.
        packs_weights: weights of few different values become look-up tables, those of many zeros sparse; exactly.
    """

    states: Mapping[str, str] = field(default_factory=dict[str, str])
    packs_weights: bool = False
