"""The table of the lowerings that all targets share. A target's own table takes precedence."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from triune.graph.conversion.context import Lowering, NodeContext
from triune.graph.conversion.lowering import (
    blocks,
    elementwise,
    indices,
    norms,
    recurrent_steps,
    reductions,
    sampling,
    shapes,
    suppression,
)

C = TypeVar("C", bound=NodeContext[Any])
"""The class of the target's `NodeContext`."""

SHARED: Final[Mapping[str, Lowering]] = {
    **blocks.TABLE,
    **elementwise.TABLE,
    **norms.TABLE,
    **indices.TABLE,
    **shapes.TABLE,
    **recurrent_steps.TABLE,
    **reductions.TABLE,
    **sampling.TABLE,
    **suppression.TABLE,
}


def with_own(*tables: Mapping[str, Callable[[C], None]]) -> Mapping[str, Callable[[C], None]]:
    """The lowerings of a target: those in its own tables, and the shared lowerings for all other operators."""
    return {**SHARED, **{op: lowering for table in tables for op, lowering in table.items()}}
