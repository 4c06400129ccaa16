"""A decoder's graph with a paged cache of keys and values, which can also be written with an explicit cache."""

from collections.abc import Callable
from dataclasses import dataclass

from triune.core.explicit_cache import ExplicitSize
from triune.graph.held import HeldModel


@dataclass(frozen=True)
class DecoderModel(HeldModel):
    """A decoder's graph with a paged cache, and a function that writes it with an explicit cache, for units that need
    fixed sizes.

    Attributes:
        context_tokens: the length of the longest context, in tokens.
        write_explicit: writes the graph for one sequence with an explicit cache.
    """

    context_tokens: int
    write_explicit: Callable[[ExplicitSize], HeldModel]
