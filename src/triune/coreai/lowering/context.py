"""The context that is passed to a function that lowers an operator to Core AI."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from triune.coreai.library import Value
from triune.graph.conversion.context import NodeContext


@dataclass(frozen=True)
class Context(NodeContext[Value]):
    """A node with its attributes, operands and scope: see `NodeContext`."""


Lowering: TypeAlias = Callable[[Context], None]
"""A function that adds operations for the outputs of a node.

It raises Refusal where the node cannot be computed exactly.
"""
