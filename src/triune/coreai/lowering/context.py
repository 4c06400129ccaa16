"""What the lowering of an operator to Core AI is given."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from triune.coreai.library import Value
from triune.graph.conversion.context import NodeContext


@dataclass(frozen=True)
class Context(NodeContext[Value]):
    """A node, and what is known around it: see `NodeContext`."""


Lowering: TypeAlias = Callable[[Context], None]
"""Adds operations that give the outputs of the node. Raises Refusal where it cannot be done exactly."""
