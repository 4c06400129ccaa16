"""The precision of a function, read from the result types of its operations."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from triune.coreai.library import ir
from triune.coreai.program import invoked

# Narrow float types, the one with the fewest mantissa bits first. Floats of at most 8 bits are only for storage, and do
# not count.
_NARROW: Mapping[str, str] = MappingProxyType({"bf16": "bf16", "f16": "fp16"})


def precision_of(function: Any, graphs: Mapping[str, Any]) -> str:
    """The least precise float type of the function's results: "bf16" or "fp16", or "fp32" if there is neither.

    Constants do not count: weights may be stored in a smaller type than the one they are computed in.

    Args:
        function: the function's graph.
        graphs: the program's graphs by name; those that the function invokes count, too.
    """
    made: set[str] = set()
    names, waiting = {function.symbol_name}, [function]
    while waiting:
        for operation in _operations(waiting.pop()):
            if operation.operation.name == "coreai.invoke":
                name = invoked(operation)
                if name in graphs and name not in names:
                    names.add(name)
                    waiting.append(graphs[name])
            elif operation.operation.name != "coreai.constant":
                made.update(_element(value.type) for value in operation.results)
    return next((word for element, word in _NARROW.items() if element in made), "fp32")


def _operations(operation: Any) -> Iterator[Any]:
    """All operations within an operation, including those in nested blocks."""
    for region in operation.regions:
        for block in region.blocks:
            for inner in block.operations:
                yield inner
                yield from _operations(inner)


def _element(kind: Any) -> str:
    return str(ir.RankedTensorType(kind).element_type) if ir.RankedTensorType.isinstance(kind) else ""
