"""Find the nodes that must compute in fp32 so that outputs are right for some inputs."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from triune.core.datatypes import Array
from triune.graph.blame.judge import errors_of
from triune.graph.blame.simulation import Node, Simulation
from triune.graph.half.limits import LARGEST
from triune.graph.half.operators import MATRIX_PRODUCTS
from triune.graph.verify.samples import YOURS

_ROUNDS = 12
"""The most rounds of the search. In each round, nodes that were found are computed in fp32, and then other nodes may be
the first wrong ones.
"""

_TOO_MUCH = 0.01
"""The error of a value, relative to its largest element, from which the node that computes it is to blame: 20 rounding
errors of fp16.
"""

_FEW_NODES = 48
"""All nodes of a graph of at most this many nodes may compute in fp32."""

_SHARE = 0.15
"""In a graph of more than `_FEW_NODES` nodes, at most this fraction of the nodes may be put into fp32 to make outputs
right for inputs that are made up to be difficult. For inputs that the user gave there is no limit.
"""

_MARGIN = 0.6
"""The search accepts errors up to this share of the tolerance, since compilers add terms in another order than the
simulation.
"""

_SMALLEST = 2.0**-24


@dataclass(frozen=True, slots=True)
class Sample:
    """A set of inputs for which an output was wrong.

    Attributes:
        name: the name of the kind of inputs.
        arrays: the inputs.
        expected: all floats of the graph in fp32, and its outputs.
        uncertain: by how much each element of an output may differ between runtimes that compute in fp32.
    """

    name: str
    arrays: Mapping[str, Array]
    expected: Mapping[str, Array]
    uncertain: Mapping[str, Array]


def search(
    simulation: Simulation, samples: Sequence[Sample], wide: Collection[str], tolerance: float, deadline: float
) -> dict[str, Node]:
    """Find nodes that compute in fp32 in addition to `wide`.

    Args:
        simulation: the graph.
        samples: the inputs for which outputs were wrong.
        wide: the first results of the nodes that compute in fp32 already.
        tolerance: the allowed error of outputs.
        deadline: the time, by `time.monotonic`, at which the search ends.

    Returns:
        the nodes by their first results; {} if no nodes that the search may find make the outputs right.
    """
    found: dict[str, Node] = {}
    blamed: set[str] = set()
    most = len(simulation.nodes) if all(each.name == YOURS for each in samples) else _most(simulation)
    for _ in range(_ROUNDS):
        halved = simulation.halved({*wide, *found})
        suspects: dict[str, None] = {}
        is_right = True
        for sample in samples:
            actual = halved.run(sample.arrays)
            off = errors(sample, actual, simulation.outputs, tolerance * _MARGIN)
            wrong = [name for name, error in off.items() if error > 1]
            is_right = is_right and not wrong
            suspects |= dict.fromkeys(_first_wrong(simulation, sample, actual, wrong, blamed) if wrong else ())
        if is_right:
            return _pruned(simulation, samples, wide, found, tolerance, deadline)
        before = len(found)
        for name in suspects:
            found |= leading_to(simulation, name, is_whole=name in blamed)
            blamed.add(name)
        if len(found) == before or len(found) > most or time.monotonic() > deadline:
            break
    return _everything(simulation, samples, wide, tolerance)


def wide_nodes(simulation: Simulation, wide: Collection[str]) -> dict[str, Node]:
    """Maps the names in `wide` to the nodes that have them as first results; {} if these are more nodes than may be in
    fp32.
    """
    found = {name: node for name, node in simulation.nodes.items() if name in wide}
    return found if len(found) <= _most(simulation) else {}


def nodes_after_layers(simulation: Simulation, outputs: Sequence[str], wide: Collection[str]) -> dict[str, Node]:
    """The nodes from the last layers of the network (`Node.is_layer`) on that compute these outputs, without those in
    `wide`; {} if these are more nodes than may be in fp32.

    An output of integers, such as ArgMax's indices, depends on floats that the last layers compute: for such an output
    these layers are among the nodes, too.
    """
    floats = {name for node in simulation.nodes.values() for name in node.results}
    found: dict[str, Node] = {}
    for name in outputs:
        tail = leading_to(simulation, name, is_whole=False)
        before = {each for node in tail.values() for each in node.operands} if name not in floats else set[str]()
        found |= tail | {each: simulation.nodes[each] for each in before if _is_layer(simulation.nodes.get(each))}
    fresh = {name: node for name, node in found.items() if name not in wide}
    return fresh if len(fresh) <= _most(simulation) else {}


def _most(simulation: Simulation) -> int:
    """The most nodes that may be in fp32 to make outputs right for inputs that are made up (`_SHARE`)."""
    num_nodes = len(simulation.nodes)
    return num_nodes if num_nodes <= _FEW_NODES else int(_SHARE * num_nodes)


def _everything(
    simulation: Simulation, samples: Sequence[Sample], wide: Collection[str], tolerance: float
) -> dict[str, Node]:
    """All nodes, if the graph is small or has no matrix products, and its outputs are right when all compute in fp32;
    else {}.

    fp16 gains little without matrix products: moving averages over the steps of a series, for example.
    """
    has_products = any(node.node.op_type in MATRIX_PRODUCTS for node in simulation.nodes.values())
    if has_products and len(simulation.nodes) > _FEW_NODES:
        return {}
    halved = simulation.halved({*wide, *simulation.nodes}, is_watched=False)
    is_right = all(
        error <= 1
        for sample in samples
        for error in errors(sample, halved.run(sample.arrays), simulation.outputs, tolerance).values()
    )
    return dict(simulation.nodes) if is_right else {}


def _pruned(
    simulation: Simulation,
    samples: Sequence[Sample],
    wide: Collection[str],
    found: dict[str, Node],
    tolerance: float,
    deadline: float,
) -> dict[str, Node]:
    """Leave out nodes of `found`, one by one, if outputs stay right without them in fp32. Returns the others."""
    for name in [*found]:
        if time.monotonic() > deadline or len(found) <= 1:
            break
        # Keep the nodes in `wide`: the simulation always computes them in fp32, so it cannot show whether they are
        # needed. Core ML computes some of them in fp16 unless they are named.
        if name in wide or _is_side(name, found):
            continue
        fewer = {each: node for each, node in found.items() if each != name}
        halved = simulation.halved({*wide, *fewer}, is_watched=False)
        if all(
            error <= 1
            for sample in samples
            for error in errors(
                sample, halved.run(sample.arrays), simulation.outputs, tolerance * _MARGIN * _MARGIN
            ).values()
        ):
            found = fewer
    return found


def _is_side(name: str, found: Mapping[str, Node]) -> bool:
    """Whether a node computes one operand of a sum, and another node of `found` the other one.

    Where two values cancel, both are needed in fp32, though the samples may be right if one of them is rounded.
    """
    return any(
        each.node.op_type in ("Add", "Sub") and name in each.operands and all(side in found for side in each.operands)
        for each in found.values()
        if len(each.operands) == 2
    )


def errors(sample: Sample, actual: Mapping[str, Array], outputs: Sequence[str], tolerance: float) -> dict[str, float]:
    """For each output, its error relative to what is allowed (`error_of`): above 1 it is wrong."""
    return errors_of({name: sample.expected[name] for name in outputs}, actual, tolerance, sample.uncertain)


def _first_wrong(
    simulation: Simulation, sample: Sample, actual: Mapping[str, Array], outputs: Sequence[str], blamed: Collection[str]
) -> list[str]:
    """The first wrong nodes, by name: they lead to wrong outputs, and their results are wrong although their operands
    are not. Nodes that are not in `blamed` are preferred.
    """
    leading = _ancestors(simulation, outputs)
    wrong = {
        name: node
        for name, node in simulation.nodes.items()
        if name in leading and any(_is_off(sample.expected[each], actual.get(each)) for each in node.results)
    }
    first = [name for name, node in wrong.items() if not wrong.keys() & node.operands]
    # If a first wrong result is beyond fp16, return all such results at once: they stay wrong whatever computes in fp32
    # before them, and a deep network may have dozens, one after the other.
    beyond = [name for name, node in wrong.items() if any(_is_beyond(sample.expected[each]) for each in node.results)]
    if not set(beyond).isdisjoint(first):
        first = list(dict.fromkeys([*first, *beyond]))
    fresh = [name for name in first if name not in blamed]
    # Prefer nodes that were not blamed before. A blamed node that is wrong although it computes in fp32 has operands
    # that are rounded too much.
    return fresh or first or [each for name in outputs for each in simulation.sources.get(name, ())]


def _is_off(expected: Array, actual: Array | None) -> bool:
    if actual is None or expected.dtype.kind != "f" or actual.size != expected.size:
        return False
    one, other = expected.astype(np.float64).reshape(-1), actual.astype(np.float64).reshape(-1)
    finite = np.isfinite(one)
    if not finite.any():
        return False
    with np.errstate(all="ignore"):
        error = float(np.max(np.abs(one[finite] - other[finite])))
    return not error <= _TOO_MUCH * max(float(np.abs(one[finite]).max()), _SMALLEST * _TOO_MUCH)


def _is_beyond(expected: Array) -> bool:
    """Whether a result has finite numbers that are infinite in fp16."""
    if expected.dtype.kind != "f":
        return False
    sizes = np.abs(expected[np.isfinite(expected)])
    return bool(sizes.size) and float(sizes.max()) > LARGEST


def _ancestors(simulation: Simulation, names: Sequence[str]) -> set[str]:
    found: set[str] = set()
    waiting = [each for name in names for each in simulation.sources.get(name, (name,))]
    while waiting:
        name = waiting.pop()
        if name in simulation.nodes and name not in found:
            found.add(name)
            waiting += simulation.nodes[name].operands
    return found


def leading_to(simulation: Simulation, name: str, *, is_whole: bool) -> dict[str, Node]:
    """The node that computes the value `name` and the nodes that compute its operands: back to the inputs if
    `is_whole`, else only back to the nearest layers of the network (`Node.is_layer`), which are left out.
    """
    found: dict[str, Node] = {}
    waiting = list(simulation.sources.get(name, (name,)))
    while waiting:
        each = waiting.pop()
        node = simulation.nodes.get(each)
        if node is None or each in found:
            continue
        found[each] = node
        if is_whole or not node.is_layer:
            waiting += [
                operand for operand in node.operands if is_whole or not _is_layer(simulation.nodes.get(operand))
            ]
    return found


def _is_layer(node: Node | None) -> bool:
    return node is not None and node.is_layer
