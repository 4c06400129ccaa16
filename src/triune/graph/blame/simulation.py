"""Compute a prepared graph in fp32, in fp32 with noise of a few rounding errors, and in fp16 as Apple's runtimes
round.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from triune.core.datatypes import Array
from triune.graph.bare import infer_bare
from triune.graph.declare_older import declare_older
from triune.graph.half_rounding import keep_half_rounding
from triune.graph.names import Names
from triune.graph.passes.halve import Halve
from triune.graph.passes.narrow_values import narrow_array
from triune.graph.session import GraphSession
from triune.graph.values import Values, names_read_by, subgraphs_of
from triune.graph.weight_files import WeightFile

_NOISE = 2.0**-22
"""The size of the noise (see `_with_noise`) relative to the elements: about four rounding errors of fp32."""

_NUM_NOISY = 4

_OFTEN = 4000.0
"""The noise is the sine of a multiple of the elements; this is the factor."""

_NUM_PHASES = 16
"""The number of different phases of the noise. Successive nodes have different phases, so that equal elements get
different noise.
"""

_NOISY_RESULTS = 4.0
"""The uncertainty of an element is its largest difference between results with noise, times this."""

_INEXACT = frozenset(
    [
        *("Exp", "Log", "Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Erf"),
        *("Sigmoid", "Tanh", "Softmax", "Softplus", "Gelu", "Elu", "Mish", "Selu", "Celu", "Pow", "Sqrt", "Reciprocal"),
        *("MatMul", "Gemm", "Conv", "ConvTranspose", "ReduceSum", "ReduceMean", "ReduceProd", "CumSum", "Div"),
        *("LayerNormalization", "InstanceNormalization", "BatchNormalization", "AveragePool", "Resize", "Einsum"),
    ]
)
"""Operators whose results differ between runtimes in their last bits."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the graph's main level with a result of floats that depends on inputs.

    Attributes:
        value: the name of the node's first result.
        node: the node.
        operands: the names of the first results of the nearest such nodes that compute its operands.
        results: the names of its results of floats.
        is_layer: whether it multiplies by constant weights.
    """

    value: str
    node: NodeProto
    operands: tuple[str, ...]
    results: tuple[str, ...]
    is_layer: bool


class Simulation:
    """A prepared graph in fp32, and its variants in fp16 and with noise.

    Attributes:
        nodes: the nodes with results of floats, in order, by the name of the first result. Those that compute constants
            are not among them.
        outputs: the names of the graph's outputs.
        sources: for each value, the names of the first results of the nearest of these nodes that compute it. Of a
            value of integers, such as ArgMax's indices, they compute the floats from which it follows.
    """

    def __init__(self, model: ModelProto, keep: Collection[str], file: WeightFile) -> None:
        """Args:
        model: in core ops and fp32, as `prepare` returns it; not changed.
        keep: names of nodes and operators that the user keeps in fp32.
        file: the scratch file for new large weights.

        Raises:
            UnsupportedError: ONNX Runtime cannot load the graph.
        """
        self._model = model
        self._keep = keep
        self._file = file
        values = Values(model.graph)
        self.nodes, self.sources = _nodes(model.graph, values)
        self.outputs = [value.name for value in model.graph.output]
        self._watched = [name for each in self.nodes.values() for name in each.results]
        self._reference = _session(_with_outputs(_copy(model), self._watched), "the graph in fp32")
        self._noisy: GraphSession | None = None
        self._phase = ""

    def reference(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute in fp32: return the outputs, and all float values of the graph that are not within a subgraph."""
        return self._run(self._reference, inputs)

    def uncertainty(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """For each float output, by how much each element may differ in another runtime that computes in fp32."""
        if self._noisy is None:
            model, self._phase = _with_noise(_copy(self._model))
            self._noisy = _session(model, "the graph with noise")
        results = [
            self._run(self._noisy, {**inputs, self._phase: np.array(1.7 * number, np.float32)})
            for number in range(_NUM_NOISY)
        ]
        first = self.reference(inputs)
        found: dict[str, Array] = {}
        with np.errstate(all="ignore"):
            for name in self.outputs:
                if first[name].dtype.kind == "f" and all(each[name].shape == first[name].shape for each in results):
                    spread = np.max([np.abs(each[name] - first[name]) for each in results], axis=0)
                    found[name] = np.nan_to_num(np.asarray(spread, np.float64), nan=np.inf) * _NOISY_RESULTS
        return found

    def halved(self, wide: Collection[str], *, is_watched: bool = True) -> "Halved":
        """The graph in fp16. The nodes whose first results are in `wide` compute in fp32."""
        model = Halve(self._keep, wide, self._file)(_copy(self._model))
        # `keep_half_rounding` drops results that no node reads, such as the values of a TopK that is read for its
        # indices.
        keep_half_rounding(model)
        made = {name for node in model.graph.node for name in node.output}
        names: dict[str, str] = {}
        for name in self._watched if is_watched else ():
            if name not in self.outputs:
                found = next((each for each in (f"{name}/fp32", name) if each in made), None)
                if found is not None:
                    names[name] = found
        # Infer the types of all values: `Halve` and `keep_half_rounding` leave some without types.
        typed = infer_bare(model)
        model.graph.ClearField("value_info")
        model.graph.value_info.extend(typed.graph.value_info)
        types = Values(model.graph)
        listed = {value.name for value in model.graph.output}
        for each in dict.fromkeys(names.values()):
            if each not in listed:
                kind = types.elem_type(each) or TensorProto.FLOAT16
                model.graph.output.append(helper.make_tensor_value_info(each, kind, None))
        return Halved(self, _session(model, "the graph in fp16"), names)

    def _run(self, session: GraphSession, inputs: Mapping[str, Array]) -> dict[str, Array]:
        results, _ = session.run({name: narrow_array(name, array) for name, array in inputs.items()}, {})
        return results

    def run_halved(self, session: GraphSession, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run a session of the graph in fp16, and return its outputs by name."""
        return self._run(session, inputs)


class Halved:
    """The graph of a `Simulation` in fp16, loaded in ONNX Runtime."""

    def __init__(self, simulation: Simulation, session: GraphSession, names: Mapping[str, str]) -> None:
        """`names` maps names of values in the fp32 graph to their names in this graph."""
        self._simulation = simulation
        self._session = session
        self._names = names

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs, and the float values of the main graph that are in fp16, by their names in the fp32 graph."""
        results = self._simulation.run_halved(self._session, inputs)
        outputs = {name: results[name] for name in self._simulation.outputs}
        return {**{name: results[other] for name, other in self._names.items()}, **outputs}


def _session(model: ModelProto, name: str) -> GraphSession:
    """Load a model whose types are known, as one of an older operator set: ONNX Runtime lacks kernels of the newest."""
    declare_older(model)
    return GraphSession(model, name, optimizes=False)


def _nodes(graph: GraphProto, values: Values) -> tuple[dict[str, Node], dict[str, tuple[str, ...]]]:
    """`Simulation.nodes` and `Simulation.sources` of a graph."""
    sources: dict[str, tuple[str, ...]] = {}
    found: dict[str, Node] = {}
    constant: set[str] = set()
    for node in graph.node:
        # Leave out nodes that compute constants, such as those that dequantize weights: their results count as weights.
        if _is_of_constants(node, values, constant):
            constant.update(node.output)
            continue
        results = tuple(name for name in node.output if name and values.elem_type(name) == TensorProto.FLOAT)
        names = sorted(names_read_by(node))
        operands = dict.fromkeys(
            each
            for name in names
            if name not in constant and values.tensor(name) is None
            for each in sources.get(name, (name,))
        )
        if not results and not any(True for _ in subgraphs_of(node)):
            # The sizes of a value do not depend on its elements.
            through = () if node.op_type in ("Shape", "Size") else tuple(operands)
            sources.update((name, through) for name in node.output if name)
            continue
        is_layer = node.op_type in ("MatMul", "Gemm", "Conv", "ConvTranspose", "LSTM", "GRU", "RNN") and any(
            name in constant or values.tensor(name) is not None for name in names
        )
        first = next((name for name in node.output if name), "")
        found[first] = Node(first, node, tuple(operands), results, is_layer)
        sources.update((name, (first,)) for name in node.output if name)
    return found, sources


def _is_of_constants(node: NodeProto, values: Values, constant: Collection[str]) -> bool:
    given = [name for name in node.input if name]
    has_inner = any(True for _ in subgraphs_of(node))
    return bool(given) and not has_inner and all(name in constant or values.tensor(name) is not None for name in given)


def _with_outputs(model: ModelProto, names: Sequence[str]) -> ModelProto:
    listed = {value.name for value in model.graph.output}
    for name in names:
        if name not in listed:
            model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return model


def _with_noise(model: ModelProto) -> tuple[ModelProto, str]:
    """Add noise of the size of rounding errors to the float results of operators that runtimes round differently.

    The noise is the sine of large multiples of the elements, since ONNX Runtime lacks random operators in new operator
    sets.

    Returns:
        the changed model, and the name of a new input, a number from which the noise follows.
    """
    graph = model.graph
    values, names = Values(graph), Names(graph)
    phase = names.value("phase")
    numbers = {
        "step": _NOISE,
        "one": 1.0,
        "often": _OFTEN,
        "low": -(_OFTEN**2),
        "high": _OFTEN**2,
        **{f"phase {number}": 2.39 * number for number in range(_NUM_PHASES)},
    }
    constant = {word: names.value(word) for word in numbers}
    nodes: list[NodeProto] = []
    for number, node in enumerate(graph.node):
        nodes.append(node)
        name = node.output[0] if node.output else ""
        if node.op_type not in _INEXACT or values.elem_type(name) != TensorProto.FLOAT:
            continue
        parts = ("exact", "multiple", "within", "own", "angle", "sine", "noise", "factor")
        exact, multiple, within, own, angle, sine, noise, factor = (names.value(f"{name}/{part}") for part in parts)
        node.output[0] = exact
        nodes += [
            helper.make_node("Mul", [exact, constant["often"]], [multiple]),
            helper.make_node("Clip", [multiple, constant["low"], constant["high"]], [within]),
            helper.make_node("Add", [within, phase], [own]),
            helper.make_node("Add", [own, constant[f"phase {number % _NUM_PHASES}"]], [angle]),
            helper.make_node("Sin", [angle], [sine]),
            helper.make_node("Mul", [sine, constant["step"]], [noise]),
            helper.make_node("Add", [noise, constant["one"]], [factor]),
            helper.make_node("Mul", [exact, factor], [name]),
        ]
    graph.initializer.extend(
        helper.make_tensor(constant[word], TensorProto.FLOAT, [], [number]) for word, number in numbers.items()
    )
    graph.input.append(helper.make_tensor_value_info(phase, TensorProto.FLOAT, []))
    kept = list(nodes)
    del graph.node[:]
    graph.node.extend(kept)
    return model, phase


def _copy(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy
