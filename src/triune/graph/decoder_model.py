"""A decoder's graph in the paged form, which can be written with an explicit cache, too."""

from collections.abc import Callable
from dataclasses import dataclass

from triune.core.explicit_cache import ExplicitSize
from triune.graph.held import HeldModel


@dataclass(frozen=True)
class DecoderModel(HeldModel):
    """The graph in the paged form, and its other form for units that need fixed sizes.

    Attributes:
        context_tokens: the longest context.
        write_explicit: writes the graph for one sequence with an explicit cache.
    """

    context_tokens: int
    write_explicit: Callable[[ExplicitSize], HeldModel]
