"""The models with which a request can end ONNX Runtime's process, by their operators: see `faults`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from onnx import GraphProto, ModelProto, NodeProto

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError
from triune.graph.bare import infer_bare
from triune.graph.faults import FAULTS, MICROSOFT, TRIED, UNTRIED, Fault
from triune.graph.values import Values, subgraphs_of


@dataclass(frozen=True, slots=True)
class Hazards:
    """What a request may do to the process that runs a model.

    Attributes:
        apart: a node that requests may end the process with, and how: the model is for a process of its own; empty
            where none is.
        sizes: inputs, and those of their axes that end it where they are 0, which no request may have.
        why: a node for which that is, and how; empty where there are none.
    """

    apart: str = ""
    sizes: Mapping[str, Sequence[int]] = field(default_factory=dict[str, Sequence[int]])
    why: str = ""

    def check(self, inputs: Mapping[str, Array]) -> None:
        """Raises InvalidArgumentError for an input with a size of 0 where none may be."""
        for name, axes in self.sizes.items():
            shape = inputs[name].shape if name in inputs else ()
            if any(axis < len(shape) and not shape[axis] for axis in axes):
                raise InvalidArgumentError(
                    f"the model cannot compute these inputs: '{name}' has the shape {list(shape)}, and a size of 0 may "
                    f"end ONNX Runtime's process at {self.why}"
                )


def hazards_of(model: ModelProto) -> Hazards:
    """Judge a model, whose data are located, by its operators, and by the sizes that these are given."""
    # Of functions, no sizes are known. Nor is what the file states of values between nodes.
    bodies = [GraphProto(node=each.node) for each in model.functions]
    apart = next((each.said for body in bodies for each in _found(body, None, None)), "")
    if not any(_found(model.graph, None, None)):
        return Hazards(apart)
    inferred = infer_bare(model, is_strict=True).graph
    places = {
        (value.name, axis): dim.dim_param
        for value in inferred.input
        for axis, dim in enumerate(value.type.tensor_type.shape.dim)
        if dim.dim_param
    }
    found = list(_found(inferred, None, frozenset(places.values())))
    sized = {name for each in found for name in each.names}
    sizes: dict[str, list[int]] = {}
    for (name, axis), size in places.items():
        if size in sized:
            sizes.setdefault(name, []).append(axis)
    apart = apart or next((each.said for each in found if not each.is_safe), "")
    return Hazards(apart, sizes, next((each.said for each in found if each.names), ""))


@dataclass(frozen=True, slots=True)
class _Found:
    """A node that may end the process.

    Attributes:
        said: it, and how.
        is_safe: it does not where the sizes called `names` are above 0.
        names: see there.
    """

    said: str
    is_safe: bool
    names: frozenset[str] = frozenset()


def _found(graph: GraphProto, outer: Values | None, names: frozenset[str] | None) -> Iterator[_Found]:
    """The nodes of a graph, and of those within, that may end the process.

    Args:
        graph: see there.
        outer: the values around it.
        names: of sizes that inputs have; None where the graph's shapes are not to be believed, but for constants'.
    """
    values = Values(graph, outer)
    for node in graph.node:
        domain = "" if node.domain == "ai.onnx" else node.domain
        fault = FAULTS.get((domain, node.op_type))
        if fault is None and domain == MICROSOFT and node.op_type not in TRIED:
            fault = UNTRIED
        if fault is not None:
            said = f"{node.op_type} '{node.name or next(filter(None, node.output), '')}': {fault.why}"
            relied = _relied_on(node, fault, values, names)
            if relied is None or relied:
                yield _Found(said, relied is not None, relied or frozenset())
        for inner in subgraphs_of(node):
            yield from _found(inner, values, names)


def _relied_on(node: NodeProto, fault: Fault, values: Values, names: frozenset[str] | None) -> frozenset[str] | None:
    """The names of the sizes that have to be above 0 for a node to be safe; None where that is not enough."""
    if not (fault.positive or fault.numbers or fault.constant):
        return None
    relied: set[str] = set()
    for place, name in enumerate(node.input):
        if not name or (values.tensor(name) is not None and place in fault.constant):
            continue
        if place in fault.constant:
            return None
        if place not in fault.positive and place not in fault.numbers:
            continue
        axes = fault.numbers.get(place)
        sizes = _sizes(name, axes, values) if names is not None or values.tensor(name) is not None else None
        if sizes is None:
            return None
        for size in sizes:
            if isinstance(size, str) and axes is None and names is not None and size in names:
                relied.add(size)
            elif isinstance(size, str) or size <= 0:
                return None
    return frozenset(relied)


def _sizes(name: str, axes: Sequence[int] | None, values: Values) -> list[int | str] | None:
    """The sizes of a value, or those of `axes`: numbers, or names, which may be empty. None where none are known."""
    kind = values.type(name)
    if kind is None or not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    if axes is not None and any(not -len(dims) <= axis < len(dims) for axis in axes):
        return None
    wanted = dims if axes is None else [dims[axis] for axis in axes]
    return [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in wanted]
