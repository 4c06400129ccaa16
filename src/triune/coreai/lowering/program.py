"""Lowering of a graph of core ops to a function of a Core AI program, node by node."""

import contextlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from triune.coreai.library import Value, dialect, ir, ops, plain
from triune.coreai.lowering import (
    composites,
    control,
    conv,
    gathers,
    linear,
    pools,
    quantize,
    random_numbers,
    recurrent,
    reductions,
    resize,
    running_sums,
    shapes,
    slices,
    unary,
)
from triune.coreai.lowering.builder import BUILDER
from triune.coreai.lowering.context import Context, Lowering
from triune.coreai.lowering.images import floats_of, pixels_of
from triune.coreai.lowering.interface import Feature, Interface, argument_attributes
from triune.coreai.lowering.scope import Scope
from triune.coreai.lowering.selections import selections, spreading
from triune.coreai.lowering.values import dtype_of, is_known_type, rank_of, reshape, shape_of, tensor_type
from triune.graph.conversion import scope as conversion
from triune.graph.conversion.lowering.table import with_own
from triune.graph.conversion.problems import Problem, Refusal, called
from triune.graph.conversion.writer import GraphWriter
from triune.graph.fused.call import DOMAIN, RESULT
from triune.graph.passes.narrow_values import NARROWED
from triune.graph.values import attributes_of

_OWN = (
    *(control, conv, gathers, linear, pools, quantize, random_numbers),
    *(recurrent, reductions, resize, running_sums, shapes, slices, unary),
)
"""Families of operators with a lowering of Core AI's own, or with its own limits."""

TABLE: Mapping[str, Lowering] = with_own(*(family.TABLE for family in _OWN))


class FunctionWriter(GraphWriter[Value]):
    """Writes a function into the MLIR module whose context is open: inputs, nodes, outputs and states."""

    library = "Core AI"
    runtime = "Core AI"
    table = TABLE

    def __init__(
        self,
        name: str,
        model: ModelProto,
        interface: Interface,
        *,
        is_packing: bool = False,
        is_located: bool = False,
    ) -> None:
        """Prepare to write a function.

        Args:
            name: the function's name.
            model: a model in core ops and narrowed element types.
            interface: the inputs, outputs and states of the function.
            is_packing: see `LowerOptions.packs_weights`.
            is_located: whether each operation's location names its ONNX node, for error messages.
        """
        super().__init__()
        self._name = name
        self._graph = model.graph
        self._interface = interface
        self._is_packing = is_packing
        self._is_located = is_located
        self._fused = {function.name: function for function in model.functions if function.domain == DOMAIN}
        self._selections = selections(model.graph)
        self._opset = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))

    def write(self) -> None:
        """Write the function into the module. If `problems` is not empty afterwards, the module must not be used."""
        inputs, outputs = self._interface.inputs, self._interface.outputs
        kinds = [feature.type() for feature in inputs]
        function = dialect.GraphOp(self._name, kinds, [], [feature.name for feature in inputs], [])
        # Set an unknown location; otherwise operations record lines of this source file.
        with function.block, ir.Location.unknown():
            scope = self.new_scope(self._graph)
            tokens: dict[str, Value] = {}
            for feature, argument in zip(inputs, function.arguments, strict=True):
                value = argument
                if feature.image is not None:
                    value = floats_of(ops.image_to_tensor(argument), feature.image, feature.dtype)
                elif feature.next:
                    value, tokens[feature.name] = dialect.read_handle(argument, dialect.create_token())
                scope.put(feature.name, value)
            self.write_nodes(self._graph, scope)
            results = [
                *(
                    self._next(feature, argument, tokens[feature.name], scope)
                    for feature, argument in zip(inputs, function.arguments, strict=True)
                    if feature.next
                ),
                *(self._result(feature, scope) for feature in outputs),
            ]
            given = [each for each in results if each is not None]
            dialect.output(given)
        names = [feature.name for feature in (*self._interface.states, *outputs)]
        _close(function, kinds, [value.type for value in given], names[: len(given)])

    def new_scope(self, graph: GraphProto, outer: conversion.Scope[Value] | None = None) -> conversion.Scope[Value]:
        """Make a scope for the values of `graph`. `outer` is the scope of the graph around it, if it is a subgraph."""
        return Scope(graph, outer, is_packing=self._is_packing)

    def around(self, node: NodeProto) -> AbstractContextManager[object]:
        """A context that gives operations the name of a node as their location, if `is_located`."""
        place: Any = ir.Location
        return place.name(called(node)) if self._is_located else place.unknown()

    def lower(self, node: NodeProto, scope: conversion.Scope[Value]) -> None:
        """Write the operations of a node."""
        lowering = self._call_fused if node.domain == DOMAIN else self.lowering_of(node)
        is_selected = not self._selections.isdisjoint(node.input)
        with spreading() if is_selected else contextlib.nullcontext():
            lowering(Context(node, attributes_of(node), scope, self.write_graph, BUILDER))

    def message_of(self, error: Exception) -> str:
        """The message of an error, without locations in source code."""
        return plain(error)

    def _call_fused(self, c: Context) -> None:
        """Write a composite operation: a private function of the module, and a call of it."""
        function = self._fused[c.node.op_type]
        given = {name: c.input(place) for place, name in enumerate(function.input)}
        operands = {name: composites.passed(name, value) for name, value in given.items()}
        kinds = [value.type for value in operands.values()]
        whole = composites.private_function(
            f"{self._name}_{function.name}",
            kinds,
            list(operands),
            composites.declaration(c.node, list(operands)),
            ir.InsertionPoint.current.block.owner.parent.regions[0].blocks[0],
        )
        graph = composites.body_of(function, given, self._opset)
        with whole.block, ir.Location.unknown():
            scope = self.new_scope(graph)
            for name, argument in zip(operands, whole.arguments, strict=True):
                scope.put(name, composites.received(name, argument))
            self.write_nodes(graph, scope)
            result = scope.value(RESULT)
            dialect.output([result])
        _close(whole, kinds, [result.type], [RESULT])
        c.give(dialect.invoke([result.type], whole.symbol_name, list(operands.values()))[0])

    def check(self, value: Value, node: NodeProto) -> None:
        """Refuse a value without elements, since Apple's interpreter crashes on one.

        Raises:
            Refusal: `value` has a dimension of size 0.
        """
        if 0 in shape_of(value):
            raise Refusal("an empty result: Core AI has no empty tensors")
        del node

    def stand_in(self, scope: conversion.Scope[Value], name: str) -> Value:
        """Return a value of the type that a failed node's output would have, so that later nodes are still checked.

        The value is fp32 if Core AI lacks the type.
        """
        elem_type = scope.values.elem_type(name) or TensorProto.FLOAT
        dtype = helper.tensor_dtype_to_np_dtype(NARROWED.get(elem_type, elem_type))
        kind = tensor_type(scope.values.shape(name) or (), dtype if is_known_type(dtype) else np.float32)
        # A placeholder: the cast may have a result of any type. A module that contains it must not be used.
        cast = ir.Operation.create("builtin.unrealized_conversion_cast", results=[kind], operands=[])
        return cast.result

    def _result(self, feature: Feature, scope: conversion.Scope[Value]) -> Value | None:
        value = self.output(feature.name, scope)
        if value is None or feature.image is None:
            return value
        height, width = (size or 0 for size in feature.shape[2:])
        return ops.tensor_to_image(feature.type(), pixels_of(value, feature.image, height, width))

    def _next(self, feature: Feature, handle: Value, token: Value, scope: conversion.Scope[Value]) -> Value | None:
        """Write the next value of a state.

        Returns:
            the token of the write; None if the output could not be lowered.
        """
        value = self.output(feature.next, scope)
        if value is None:
            return None
        if dtype_of(value) != feature.dtype or rank_of(value) != len(feature.shape):
            self.problems.append(
                Problem(f"output '{feature.next}'", f"it is not of the type and rank of state '{feature.name}'")
            )
            return None
        if None in shape_of(value):
            # Reshape the value to the fixed sizes of the state: some sizes of the value are known only at run time.
            value = reshape(value, [int(size) for size in feature.shape if size is not None])
        return ops.write_handle(handle, value, token)


def _close(function: Any, inputs: list[Any], outputs: list[Any], names: list[str]) -> None:
    """Set the type of a function and the names of its results, once the results are known."""
    function.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(inputs, outputs))
    function.res_attrs = argument_attributes(names)
