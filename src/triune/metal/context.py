"""The context of a node that is computed with MLX."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias, cast

from triune.graph.conversion.context import NodeContext
from triune.metal.library import Value

if TYPE_CHECKING:
    from triune.metal.builder import MlxBuilder

Context: TypeAlias = NodeContext[Value]

Lowering: TypeAlias = Callable[[Context], None]
"""A function that computes a node's outputs. It raises Refusal if they cannot be computed."""


def builder_of(c: Context) -> "MlxBuilder":
    """The node's builder as what it is: MLX's."""
    return cast("MlxBuilder", c.builder)
