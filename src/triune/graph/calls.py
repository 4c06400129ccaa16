"""Check which functions of a model call which."""

from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from typing import Final

from onnx import FunctionProto

from triune.core.printable import printable
from triune.graph.values import nodes_within

_MOST_CALLS: Final = 100
"""The longest chain of functions that call each other. onnx (1.23) inlines and checks no longer one."""


def problem_of_calls(functions: Iterable[FunctionProto]) -> str | None:
    """Say which function calls itself, or that a chain of calls is too long; None if neither is so.

    Args:
        functions: the functions of a model, or the bodies of custom operators. Calls of other functions do not count.
    """
    bodies = {(each.domain, each.name, each.overload): each for each in functions}
    called = {
        key: {(node.domain, node.op_type, node.overload) for node in nodes_within(body.node)} & bodies.keys()
        for key, body in bodies.items()
    }
    depths: dict[tuple[str, str, str], int] = {}
    try:
        for key in TopologicalSorter(called).static_order():
            depths[key] = 1 + max((depths[each] for each in called[key]), default=0)
    except CycleError as error:
        domain, name, _ = error.args[1][0]
        return f"the function '{printable(domain)}::{printable(name)}' calls itself, directly or through others"
    deepest = max(depths.values(), default=0)
    if deepest > _MOST_CALLS:
        return f"functions call each other {deepest} deep; {_MOST_CALLS} is the limit: inline some of them"
    return None
