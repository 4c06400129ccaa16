"""Lowering of a graph of core ops to a MIL program, node by node."""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from onnx import GraphProto, NodeProto, TensorProto

from triune.core.errors import InvalidArgumentError
from triune.coreml.lowering import (
    blocks,
    control,
    conv,
    gathers,
    linear,
    norms,
    pads,
    pools,
    quantize,
    random_numbers,
    recurrent,
    resize,
    running_sums,
    sampling,
    shapes,
    slices,
    suppression,
    unary,
)
from triune.coreml.lowering.builder import BUILDER
from triune.coreml.lowering.context import MAX_RANK, Context, Lowering, Refusal
from triune.coreml.lowering.interface import Feature, Interface
from triune.coreml.lowering.mb import Function, Program, Var, get_new_symbol, is_fixed, mb, typed_var, types
from triune.coreml.lowering.options import LowerOptions
from triune.coreml.lowering.precision import in_fp32, marked_for_fp32
from triune.coreml.lowering.scope import Scope
from triune.coreml.lowering.subtraction import add_negated_constants
from triune.graph.conversion import scope as conversion
from triune.graph.conversion.lowering.table import with_own
from triune.graph.conversion.prepare import Prepared
from triune.graph.conversion.problems import Problem, called
from triune.graph.conversion.writer import GraphWriter
from triune.graph.listed import MOST_LISTED
from triune.graph.values import attributes_of

_OWN = (
    *(blocks, control, conv, gathers, linear, norms, pads),
    *(pools, quantize, random_numbers, recurrent, resize, running_sums, sampling),
    *(shapes, slices, suppression, unary),
)
"""Families of operators with a lowering of Core ML's own, or with its own limits."""

TABLE: Mapping[str, Lowering] = with_own(*(family.TABLE for family in _OWN))

_MIL_TYPES: Mapping[int, str] = {
    TensorProto.FLOAT16: "fp16",
    TensorProto.FLOAT: "fp32",
    TensorProto.DOUBLE: "fp32",
    TensorProto.BOOL: "bool",
}
"""MIL's name for each element type of a narrowed graph; types that are missing here become int32."""


class ProgramWriter(GraphWriter[Var]):
    """Writes the function `main` of a program.

    Attributes:
        notes: what differs from the model, and why.
        deep: problems with tensors of rank above 5. They count only if coremltools' passes do not remove the tensor.
    """

    library = "coremltools"
    runtime = "Core ML"
    table = TABLE

    def __init__(self, prepared: Prepared, interface: Interface, options: LowerOptions) -> None:
        """`interface` describes the inputs and outputs of `prepared`, with the shapes that are allowed."""
        super().__init__()
        self._graph = prepared.model.graph
        self._wide = prepared.wide
        self._interface = interface
        self._options = options
        self.notes: list[str] = []
        self.deep: list[Problem] = []
        self._given: list[Var] = []

    def write(self) -> Any:
        """Write the program and return it. If `problems` is not empty afterwards, it must not be used."""
        program = Program()
        features = (*self._interface.inputs, *self._interface.states)
        inputs = {feature.name: feature.placeholder() for feature in features}
        with Function(inputs, opset_version=self._interface.opset) as function:
            scope = self.new_scope(self._graph)
            for feature in features:
                scope.put(feature.source, feature.to_graph_value(function.inputs[feature.name]))
            self.write_nodes(self._graph, scope)
            for feature in self._interface.states:
                self._update(function.inputs[feature.name], feature, scope)
            outputs = [self._output(feature.source, feature.name, scope) for feature in self._interface.outputs]
            function.set_outputs([each for each in outputs if each is not None])
            add_negated_constants(function)
        program.add_function("main", function)
        return program

    def _update(self, state: Var, feature: Feature, scope: conversion.Scope[Var]) -> None:
        """Write a state's next value. It is the last operation on the state.

        Raises:
            InvalidArgumentError: the value has another shape than the state.
        """
        value = self.output(feature.next, scope)
        if value is None:
            return
        shape, given = feature.shape or (1,), tuple(value.shape) or (1,)
        if len(given) != len(shape) or any(
            is_fixed(one) and one != other for one, other in zip(given, shape, strict=False)
        ):
            raise InvalidArgumentError(
                f"state '{feature.source}' is {list(feature.shape)}, and its next value '{feature.next}' has the shape "
                f"[{', '.join(map(str, value.shape))}]; a state has one fixed shape"
            )
        if tuple(value.shape) != shape:
            # Reshape the value to the state's fixed shape: a scalar is a vector of one element in Core ML, and
            # coremltools takes no value whose sizes are computed.
            value = mb.reshape(x=value, shape=shape)
        mb.coreml_update_state(state=state, value=value if value.dtype == types.fp16 else _halved(value))

    def _output(self, source: str, name: str, scope: conversion.Scope[Var]) -> Var | None:
        """Convert a value to an output of Core ML: at least rank 1, int32 in place of bool, with the output's name."""
        value = self.output(source, scope)
        if value is None:
            return None
        if value.dtype == types.bool:
            value = mb.cast(x=value, dtype="int32")
        if value.rank == 0:
            return mb.expand_dims(x=value, axes=[0], name=name)
        if value.op is None or value.op.op_type == "const" or value in self._given:
            value = mb.identity(x=value)
        self._given.append(value)
        value.set_name(name)
        value.op.name = name
        return value

    def new_scope(self, graph: GraphProto, outer: conversion.Scope[Var] | None = None) -> conversion.Scope[Var]:
        """Make a scope for the values of `graph`. `outer` is the scope of the graph around it, if it is a subgraph."""
        return Scope(graph, outer)

    def around(self, node: NodeProto) -> AbstractContextManager[object]:
        """A context that marks a node's operations if they must compute in fp32."""
        return marked_for_fp32(node, self._options, self._wide)

    def lower(self, node: NodeProto, scope: conversion.Scope[Var]) -> None:
        """Write the operations of a node."""
        lowering = self.lowering_of(node)
        _require_small_constants(node, scope)

        def note(what: str) -> None:
            self.notes.append(f"{called(node)}: {what}")

        target, precision = self._options.target, self._options.precision
        context = Context(node, attributes_of(node), scope, self.write_graph, BUILDER, target, precision, note)
        lowering(context)

    def check(self, value: Var, node: NodeProto) -> None:
        """Refuse the result of a node if Core ML cannot have such a tensor.

        A result of a Reshape or a Transpose with more than 5 dimensions is not refused here: it is added to `deep`.

        Raises:
            Refusal: the value has more than 5 dimensions, no elements, or a negative size.
        """
        if value.rank > MAX_RANK:
            shape = ", ".join(str(dim) for dim in value.shape)
            reason = f"a tensor of rank {value.rank}, [{shape}]; Core ML's limit is rank {MAX_RANK}: reshape it before"
            # Accept a Transpose between two Reshapes: a pass of coremltools later reduces its rank to 5.
            if node.op_type not in ("Reshape", "Transpose"):
                raise Refusal(reason)
            self.deep.append(Problem(called(node), reason))
        if any(dim == 0 for dim in value.shape):
            raise Refusal("an empty result: Core ML has no empty tensors")
        if any(is_fixed(dim) and dim < 0 for dim in value.shape):
            # Refuse a negative size, which coremltools may infer: it would fail only later, when it writes the program.
            shape = ", ".join(str(dim) for dim in value.shape)
            raise Refusal(f"its result would have the shape [{shape}]; correct its attributes or sizes")

    def stand_in(self, scope: conversion.Scope[Var], name: str) -> Var:
        """Return a value of the type that a failed node's output would have, so that later nodes are still checked."""
        elem_type = scope.values.elem_type(name) or TensorProto.FLOAT
        shape = scope.values.shape(name) or ()
        kind = _MIL_TYPES.get(elem_type, "int32")
        dims = [get_new_symbol() if dim is None else dim for dim in shape]
        return typed_var(name, dims, kind)


def _halved(value: Var) -> Var:
    with in_fp32():
        return mb.cast(x=value, dtype="fp16")


def _require_small_constants(node: NodeProto, scope: conversion.Scope[Var]) -> None:
    """Refuse a node of constant operands whose result is large, and larger than its operands.

    coremltools would compute the result and save it as a constant.

    Raises:
        Refusal: the result has too many elements.
    """
    names = [name for name in node.input if name]
    made, *given = [math.prod(scope.values.static_shape(name) or ()) for name in (*node.output[:1], *names)] or [0]
    if names and made > max(MOST_LISTED, sum(given)) and all(scope.constant(name) is not None for name in names):
        raise Refusal(
            f"its result is constant, of {made} elements, which the package would store; at most {MOST_LISTED} are "
            "allowed: make the result an input of the model"
        )
