"""Writes an optimization as one page of HTML: what each pass did, and the graph before and after, side by side."""

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import TYPE_CHECKING

from onnx import AttributeProto, GraphProto, ModelProto

from triune.graph.optimizing.run import Optimized
from triune.graph.values import Values, subgraphs_of
from triune.pages.page import page

if TYPE_CHECKING:
    from triune.api.optimizing.optimize import Optimization

_Node = Mapping[str, object]

_SUBGRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)


def page_of(title: str, result: "Optimization", done: Optimized) -> str:
    """The page of an optimization; `title` is the name of the source."""
    (before, keys), (after, keys_after) = _nodes(done.before), _nodes(done.model)
    content = {
        "title": title,
        "level": result.level.value,
        "unit": result.unit.value,
        "passes": [
            {
                "name": each.name,
                "what": each.what,
                "change": each.change,
                "before": each.num_nodes_before,
                "after": each.num_nodes_after,
                "seconds": each.seconds,
                "left_out": each.left_out,
            }
            for each in result.passes
        ],
        "idle": list(result.idle),
        "notes": [*result.notes, *([f"not compared: {result.not_compared}"] if result.not_compared else [])],
        "outputs": [
            {"name": each.name, "verdict": each.verdict.value, "error": _number(each.error), "allowed": each.allowed}
            for each in result.outputs
        ],
        "num_nodes": [result.num_nodes_before, result.num_nodes_after],
        "before": before,
        "after": after,
        "rows": _rows(keys, keys_after),
    }
    return page("triune.api.optimizing", "Optimization", content)


def _number(value: float) -> float | None:
    return value if value < float("inf") else None


def _nodes(model: ModelProto) -> tuple[list[_Node], list[str]]:
    """The nodes of a model in order, without Constants, and their keys: nodes are equal if their keys are. Those of a
    subgraph follow its node, with a larger depth.
    """
    found: list[_Node] = []
    keys: list[str] = []
    _collect(model.graph, None, 0, found, keys)
    return found, keys


def _collect(graph: GraphProto, outer: Values | None, depth: int, found: list[_Node], keys: list[str]) -> None:
    values = Values(graph, outer)
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            continue
        inputs = [_described(values, name) for name in node.input]
        found.append(
            {
                "op": node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}:{node.op_type}",
                "name": node.name,
                "depth": depth,
                "inputs": inputs,
                "outputs": [_described(values, name) for name in node.output if name],
            }
        )
        # The shapes of results are left out: inference may know other names of sizes, or more sizes, afterwards.
        constants = [each["shape"] for each in inputs if each["is_constant"]]
        kept = [each.SerializeToString() for each in node.attribute if each.type not in _SUBGRAPHS]
        keys.append(repr((node.domain, node.op_type, [*node.input], [*node.output], constants, sorted(kept))))
        for inner in subgraphs_of(node):
            _collect(inner, values, depth + 1, found, keys)


def _described(values: Values, name: str) -> Mapping[str, object]:
    kind = values.type(name) if name else None
    sizes: list[str] | None = None
    if kind is not None and kind.tensor_type.HasField("shape"):
        sizes = [
            str(dim.dim_value) if dim.HasField("dim_value") else _name(dim.dim_param)
            for dim in kind.tensor_type.shape.dim
        ]
    return {"name": name, "shape": sizes, "is_constant": bool(name) and values.tensor(name) is not None}


def _name(size: str) -> str:
    """The name of a size; "?" for one that ONNX's shape inference made up."""
    return "?" if not size or size.startswith("unk__") else size


def _rows(before: Sequence[str], after: Sequence[str]) -> list[tuple[int | None, int | None, bool]]:
    """Align two lists of nodes, given by their keys, in rows: equal nodes share a row, and removed nodes stand beside
    added ones.

    Returns rows (position in `before`, position in `after`, whether the nodes are equal). A position is None if the
    other list has more nodes there.
    """
    rows: list[tuple[int | None, int | None, bool]] = []
    for kind, begin, end, begin_after, end_after in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        pairs = zip_longest(range(begin, end), range(begin_after, end_after))
        rows += [(one, other, kind == "equal") for one, other in pairs]
    return rows
