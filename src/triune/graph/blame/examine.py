"""Examine a model whose conversion to fp16 was wrong for some inputs, or has branches that no input took."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from onnx import ModelProto

from triune.core.datatypes import Array
from triune.core.errors import TriuneError
from triune.graph.ane import Report as LayoutReport
from triune.graph.audit import InputSet
from triune.graph.blame.gates import Untaken, described
from triune.graph.blame.search import Sample, errors, leading_to, nodes_after_layers, search, wide_nodes
from triune.graph.blame.simulation import Node, Simulation
from triune.graph.conversion.options import ConversionOptions, Layout, Precision
from triune.graph.conversion.prepare import prepare, silent
from triune.graph.values import subgraphs_of
from triune.graph.weight_files import WeightFile

_MOST_SAMPLES = 8
_MOST_NAMED = 4
"""The largest number of names that a list in a note has."""

_MOST_IN_BRANCH = 64
"""The untaken side of a gate (If, Where, Max, Min, Clip) is computed in fp32 if it has at most this many nodes."""

_MOST_ELEMENTS = 200_000_000
"""The graph is not examined if its values have more elements than this, since all are held at once."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """A set of inputs for which the conversion is wrong.

    Attributes:
        inputs: the inputs.
        actual: the conversion's outputs.
    """

    inputs: InputSet
    actual: Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Examined:
    """The result of an examination.

    Attributes:
        wide: the names of the first results of the nodes that are to compute in fp32.
        notes: notes that name these nodes and the reasons, and say what was not compared or not found out.
        doubts: the names of the narrow sets of inputs (`InputSet.is_narrow`) for which the conversion is wrong by more
            than results in fp32 differ between runtimes.
    """

    wide: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def examine(
    model: ModelProto,
    options: ConversionOptions,
    wrong: Sequence[Wrong],
    untaken: Sequence[Untaken],
    tolerance: float,
    seconds: float,
) -> Examined:
    """Find the nodes to compute in fp32 so that a conversion is right.

    Args:
        model: the source, not changed.
        options: those with which it was converted, to fp16 or mixed.
        wrong: the sets of inputs for which outputs were wrong, and these outputs.
        untaken: the sides of gates (If, Where, Max, Min, Clip) that no set of inputs took.
        tolerance: the allowed error of outputs, relative to the largest element.
        seconds: how long the search may take.
    """
    deadline = time.monotonic() + seconds
    layout = LayoutReport() if options.layout is Layout.ANE else None
    keep = options.keep_fp32 if options.precision is Precision.MIXED else frozenset[str]()
    unknown = [f"no generated input takes {described(untaken)}, so that was not compared"] if untaken else []
    try:
        with WeightFile() as file:
            prepared = prepare(model, options, layout, silent, file)
            simulation = Simulation(prepared.model, keep, file)
            wide = prepared.wide | options.wide
            certain = _certain(simulation, wrong, tolerance, deadline)
            halved = simulation.halved(wide, is_watched=False)
            samples = [each for each in certain if _is_wrong(each, halved.run(each.arrays), simulation, tolerance)]
            found = search(simulation, samples, wide, tolerance, deadline) if samples else {}
            # If the simulation is right but the program is wrong, the compiler fuses nodes that need fp32 with other
            # nodes, or the runtime rounds within a node, as Apple's interpreter does after each product of a MatMul.
            fused = [each for each in certain if not any(each is sample for sample in samples)]
            fresh = wide_nodes(simulation, prepared.wide - options.wide) if fused else {}
            if fused and not fresh:
                fresh = nodes_after_layers(simulation, _wrong_outputs(simulation, fused, wrong, tolerance), wide)
            found = {**found, **fresh}
            branches, left = _branches(simulation, untaken)
    except TriuneError as error:
        # ONNX Runtime cannot run the graph in fp32, in fp16 or with noise, for lack of an operator. So only the result
        # of the comparison is reported.
        kinds = _some(list(dict.fromkeys(each.inputs.name for each in wrong)))
        doubt = f"fp16 differs from the source for {kinds}, and why could not be found: {error}"
        return Examined(notes=(*unknown, doubt) if wrong else tuple(unknown))
    notes: list[str] = []
    if found:
        kinds = _some(list(dict.fromkeys(each.name for each in (*samples, *(fused if fresh else ())))))
        notes.append(f"fp16 is not exact enough for {kinds}: {_listed(found.values())} compute in fp32")
    if branches:
        notes.append(
            f"no generated input takes {described([each for each in untaken if each not in left])}, so that computes "
            f"in fp32: {_listed(branches.values())}"
        )
    if left:
        notes.append(f"no generated input takes {described(left)}, so that was not compared")
    narrow = {each.inputs.name for each in wrong if each.inputs.is_narrow}
    doubts = tuple(each.name for each in certain if each.name in narrow)
    return Examined(tuple({**found, **branches}), tuple(notes), doubts)


def _certain(simulation: Simulation, wrong: Sequence[Wrong], tolerance: float, deadline: float) -> list[Sample]:
    """The sets of inputs for which the conversion is wrong, with the expected outputs: at most `_MOST_SAMPLES`, and
    only as many as the time until `deadline` allows; [] if the graph has too many elements (`_MOST_ELEMENTS`). A narrow
    set (`InputSet.is_narrow`) counts only if the error is larger than the difference between two runtimes that both
    compute in fp32.
    """
    found: list[Sample] = []
    for each in wrong:
        arrays = each.inputs.arrays
        expected = simulation.reference(arrays)
        if sum(array.size for array in expected.values()) > _MOST_ELEMENTS:
            return []
        sample = Sample(each.inputs.name, arrays, expected, simulation.uncertainty(arrays))
        if not each.inputs.is_narrow or _is_wrong(sample, each.actual, simulation, tolerance):
            found.append(sample)
        if len(found) == _MOST_SAMPLES or time.monotonic() > deadline:
            break
    return found


def _wrong_outputs(
    simulation: Simulation, samples: Sequence[Sample], wrong: Sequence[Wrong], tolerance: float
) -> list[str]:
    """The outputs of the conversion that are wrong for some of the samples."""
    found: dict[str, None] = {}
    for sample in samples:
        actual = next(each.actual for each in wrong if each.inputs.arrays is sample.arrays)
        off = errors(sample, actual, simulation.outputs, tolerance)
        found |= dict.fromkeys(name for name, error in off.items() if error > 1)
    return list(found)


def _is_wrong(sample: Sample, actual: Mapping[str, Array], simulation: Simulation, tolerance: float) -> bool:
    return any(error > 1 for error in errors(sample, actual, simulation.outputs, tolerance).values())


def _branches(simulation: Simulation, untaken: Iterable[Untaken]) -> tuple[dict[str, Node], list[Untaken]]:
    """The nodes that compute the untaken sides of gates, and the gates that are left out since their sides have too
    many nodes.
    """
    found: dict[str, Node] = {}
    left: list[Untaken] = []
    for each in untaken:
        node = simulation.nodes.get(each.value)
        if node is None or node.node.op_type != each.op_type:
            # The simulated graph lacks this gate. Report only an If or Where: a Max, Min or Clip may be missing because
            # its operands were folded or fused.
            left += [each] if each.op_type in ("If", "Where") else []
            continue
        if each.op_type == "If":
            side = leading_to(simulation, each.value, is_whole=False)
            num = len(side) + sum(len(list(inner.node)) for inner in subgraphs_of(node.node))
        else:
            first = 1 if each.op_type == "Where" else 0
            name = node.node.input[first if each.side else first + 1]
            side = leading_to(simulation, name, is_whole=False)
            num = len(side)
        if num > _MOST_IN_BRANCH:
            left.append(each)
        else:
            # The gate itself (the If, Where, Max, Min or Clip) computes in fp32 too, since it passes on the numbers of
            # its untaken side, which may be small.
            found |= side | ({each.value: node} if side else {})
    return found, left


def _listed(nodes: Iterable[Node]) -> str:
    return _some([f"{each.node.op_type} '{each.node.name or each.value}'" for each in nodes])


def _some(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _MOST_NAMED} more" if len(texts) > _MOST_NAMED else ""
    return ", ".join(texts[:_MOST_NAMED]) + more
