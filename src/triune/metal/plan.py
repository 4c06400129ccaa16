"""Chooses the function that computes each node of a graph of core ops: MLX's own operation, or a shared lowering."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnx import GraphProto, NodeProto, TensorProto

from triune.graph.conversion import scope as conversion
from triune.graph.conversion.lowering.table import with_own
from triune.graph.conversion.problems import Problem, called, require_none
from triune.graph.conversion.unconverted import why_unconverted
from triune.graph.fused.call import DOMAIN
from triune.graph.values import attributes_of, names_read_by
from triune.metal import (
    attention,
    control,
    conv,
    elementwise,
    fusion,
    gathers,
    linear,
    norms,
    pools,
    quantize,
    random_numbers,
    reductions,
    resize,
    shapes,
    slices,
    whole,
)
from triune.metal.builder import MlxBuilder
from triune.metal.context import Lowering
from triune.metal.library import Value
from triune.metal.packing import Quantized

_OWN = (
    *(attention, control, conv, elementwise, gathers, linear, norms),
    *(pools, quantize, random_numbers, reductions, resize, shapes, slices, whole),
)
"""Families of operators that MLX has itself."""

TABLE: Mapping[str, Lowering] = with_own(*(family.TABLE for family in _OWN))

BEYOND_CORE = ("BitCast", "RMSNormalization", "RotaryEmbedding", *whole.TABLE)
"""Operators that MLX computes as they are, although `normalize` could decompose them to core ops."""

STANDARD = ("", "ai.onnx")
"""The names of ONNX's own domain."""

_FUSED: Mapping[str, Lowering] = {
    "rms_norm": norms.fused_rms_norm,
    "scaled_dot_product_attention": attention.fused_attention,
}
"""Patterns of `graph.fused` that are one operation of MLX."""

ROTARY = ("RotaryEmbedding", fusion.ROTARY)
"""Operators whose inputs 1 and 2 are tables of angles."""

WIDE: Mapping[str, Sequence[int]] = {
    **dict.fromkeys(ROTARY, (1, 2)),
    **dict.fromkeys(["QLinearMatMul", "QLinearConv"], (1, 4, 6)),
}
"""For each operator, the positions of inputs that stay in fp32 if they are constants. With rounded angles, positions
beyond a few hundred could not be told apart; with rounded scales, numbers would be quantized to other integers.
"""


@dataclass(frozen=True, slots=True)
class Step:
    """A node, ready to be computed.

    Attributes:
        node: the node.
        lowering: the function that computes the node.
        attributes: the node's attributes.
        kinds: MLX's type of each output; None if the graph does not declare the type.
    """

    node: NodeProto
    lowering: Lowering
    attributes: Mapping[str, Any]
    kinds: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """A graph or subgraph, ready to be computed.

    Attributes:
        graph: the graph. It is kept alive, since plans are looked up by its `id`.
        steps: its nodes in order.
        constants: the values that depend on constants alone and were computed, by name.
    """

    graph: GraphProto
    steps: list[Step]
    constants: dict[str, Value]


class Plans:
    """The plans of a graph and of its subgraphs.

    Attributes:
        main: the plan of the graph itself.
        all: all plans, by `id(graph)` of their graphs.
        is_random: whether a node draws random numbers.
    """

    def __init__(self, graph: GraphProto, float_type: Any, more: Mapping[str, Lowering]) -> None:
        """Plan a graph.

        Args:
            graph: a graph of core ops, and of the operators in `BEYOND_CORE`, which are not decomposed to core ops.
            float_type: MLX's type in which FLOAT is computed.
            more: the functions that compute operators of other domains.

        Raises:
            UnsupportedError: nodes cannot be computed: one message names each with its reason.
        """
        self._builder = MlxBuilder(float_type)
        self._more = more
        self._problems: list[Problem] = []
        self.all: dict[int, Plan] = {}
        self.is_random = False
        self.main = self.of(graph)
        require_none(self._problems, "MLX")

    def of(self, graph: GraphProto) -> Plan:
        """The plan of the graph or of a subgraph."""
        found = self.all.get(id(graph))
        if found is not None:
            return found
        values = conversion.Values(graph)
        steps: list[Step] = []
        for node in graph.node:
            attributes = attributes_of(node)
            if node.domain == DOMAIN:
                lowering = _FUSED.get(attributes["kind"])
            else:
                lowering = (TABLE if node.domain in STANDARD else self._more).get(node.op_type)
            self.is_random |= node.op_type in random_numbers.OPS
            for each in attributes.values():
                if isinstance(each, GraphProto):
                    self.of(each)
            kinds: dict[str, Any] = dict.fromkeys(filter(None, node.output))
            for name in kinds:
                # Take only types of ONNX's own operators from the graph: those of other domains choose the types of
                # their outputs themselves.
                elem_type = values.elem_type(name) if node.domain in STANDARD else 0
                try:
                    if elem_type:
                        kinds[name] = self._builder.kind_of(elem_type)
                except KeyError:
                    kind = TensorProto.DataType.Name(elem_type)
                    self._problems.append(Problem(called(node), f"its result is of {kind}, which MLX does not have"))
            if lowering is None:
                self._problems.append(Problem(called(node), why_unconverted(node, "MLX")))
            else:
                steps.append(Step(node, lowering, attributes, kinds))
        plan = Plan(graph, steps, {})
        self.all[id(graph)] = plan
        return plan


def needed(plan: Plan, packed: Mapping[str, Quantized]) -> list[Step]:
    """The steps that an output depends on, without those that compute a weight in `packed`, which MLX reads in its own
    packed form.
    """
    wanted = Counter(value.name for value in plan.graph.output)
    steps: list[Step] = []
    for step in reversed(plan.steps):
        if not any(name in wanted for name in step.node.output):
            continue
        steps.append(step)
        wanted.update(read_by(step, packed))
    return steps[::-1]


def read_by(step: Step, packed: Mapping[str, Quantized]) -> Collection[str]:
    """The values that a step reads, without the weights in `packed`, which MLX reads in its own packed form."""
    is_packed = step.node.op_type == "MatMul" and step.node.input[1] in packed
    return step.node.input[:1] if is_packed else names_read_by(step.node)
