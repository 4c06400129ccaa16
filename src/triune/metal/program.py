"""A graph of core ops as a function of MLX's arrays."""

import functools
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, TensorProto, helper

from triune.core.errors import UnsupportedError
from triune.graph.conversion import scope as conversion
from triune.graph.conversion.problems import called
from triune.graph.folding_limit import folding_limit, result_bytes
from triune.graph.values import Values, names_read_by, subgraphs_of
from triune.graph.weight_files import array_of
from triune.metal import attention, random_numbers
from triune.metal.builder import MlxBuilder
from triune.metal.context import Context, Lowering, NamedContext
from triune.metal.library import Value, from_numpy, mx
from triune.metal.packing import Quantized, Reader, quantized, with_matrices
from triune.metal.plan import ROTARY, STANDARD, WIDE, Plan, Plans, Step, needed, read_by
from triune.metal.scope import Scope

_BYTES: Mapping[int, Any] = {TensorProto.INT4: np.int8, TensorProto.UINT4: np.uint8}


class TooLargeError(MemoryError):
    """A node would make an array of more bytes than the program allows (`most_bytes`).

    Attributes:
        node: the node's operator and name.
    """

    def __init__(self, node: str, num_bytes: int) -> None:
        super().__init__(f"{node}: Unable to allocate {num_bytes} bytes")
        self.node = node


class Program:
    """Computes a graph. Values that depend on constants alone are computed once, when the program is made, as long as
    they take no more than `folding_limit` bytes together; all others are computed in each run.

    Attributes:
        is_random: whether results differ from run to run.
    """

    def __init__(
        self,
        graph: GraphProto,
        *,
        float_type: Any = mx.float32,
        read: Reader = array_of,
        more: Mapping[str, Lowering] | None = None,
        most_bytes: int | None = None,
        checks: bool = True,
    ) -> None:
        """Prepare to compute a graph.

        Args:
            graph: a graph of core ops, and of operators in `plan.BEYOND_CORE`, which are not decomposed to them.
            float_type: MLX's type in which FLOAT is computed: fp32, bf16 or fp16.
            read: reads the elements of an initializer.
            more: the functions that compute operators of other domains.
            most_bytes: the size of the largest array that a node may make; None means that of the machine's memory.
            checks: whether indices are checked here; otherwise the caller must check them.

        Raises:
            UnsupportedError: nodes cannot be computed: one message names each with its reason.
        """
        self._graph, self._read, self._float_type = graph, read, float_type
        self._checks = checks
        self._most_bytes = most_bytes or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        self._wide = {
            node.input[index] for node in graph.node for index in WIDE.get(node.op_type, ()) if index < len(node.input)
        }
        self._kernels = {node.input[1] for node in graph.node if node.op_type == "Conv" and node.domain in STANDARD}
        self._plans = Plans(graph, float_type, more or {})
        self.is_random = self._plans.is_random
        self._quantized = self._pack(graph)
        self._wavelengths = self._find_wavelengths(graph)
        self._compute_constants(self._plans.main)

    @property
    def num_packed(self) -> int:
        """How many products are computed with packed weights."""
        return len(self._quantized)

    def __call__(
        self, inputs: Mapping[str, Value], outputs: Sequence[str], *, is_compiling: bool = False
    ) -> tuple[list[Value], list[tuple[Value, str]]]:
        """Compute outputs.

        Args:
            inputs: arrays by name; those with a default may be left out.
            outputs: the names of the outputs to compute.
            is_compiling: whether MLX is tracing the function to compile it, so that the inputs have no elements yet.

        Returns:
            the outputs, and the indices that may be out of range (`MlxBuilder.faults`).

        Raises:
            Refusal: a node cannot compute these inputs.
            Exception: any error of MLX.
        """
        builder, scope, nodes = self._bound
        builder.begin(is_compiling=is_compiling)
        try:
            for name, value in inputs.items():
                scope.put(name, value)
            for step, context in nodes:
                self._compute(step, context)
            return [scope.value(name) for name in outputs], builder.faults
        finally:
            # Drop all values of the run, so that their memory is freed.
            scope.clear()

    @functools.cached_property
    def _bound(self) -> tuple[MlxBuilder, Scope, list[tuple[Step, Context]]]:
        """The builder, the scope, and the nodes with their contexts, which all runs share."""
        plan, builder = self._plans.main, self._builder()
        scope = self._scope(plan, None)
        return builder, scope, [(step, self._context(step, scope, builder)) for step in plan.steps]

    def _builder(self) -> MlxBuilder:
        return MlxBuilder(self._float_type, self._quantized, self._wavelengths, checks=self._checks)

    def _scope(self, plan: Plan, outer: conversion.Scope[Value] | None) -> Scope:
        return Scope(plan.graph, outer, plan.constants, self._make)

    def _make(self, tensor: TensorProto) -> Value:
        array = self._read(tensor)
        if tensor.data_type in _BYTES:
            # Put each integer of 4 bits into a byte, since MLX has none of 4 bits.
            array = array.astype(_BYTES[tensor.data_type])
        # A convolution kernel becomes a view of an array with channels last, as MLX reads it. Otherwise each run would
        # copy it.
        is_kernel = tensor.name in self._kernels and array.ndim > 1
        try:
            value = from_numpy(np.moveaxis(array, 1, -1) if is_kernel else array)
        except (TypeError, ValueError) as error:
            kind = helper.tensor_dtype_to_string(tensor.data_type)
            raise UnsupportedError(f"constant '{tensor.name}' is of {kind}, which MLX does not have") from error
        is_cast = tensor.data_type == TensorProto.FLOAT and tensor.name not in self._wide
        value = value.astype(self._float_type) if is_cast else value
        # Evaluate the constant now. Otherwise a compiled function would cast it in each of its calls.
        mx.eval(value)
        return mx.moveaxis(value, -1, 1) if is_kernel else value

    def _run(self, plan: Plan, scope: conversion.Scope[Value], builder: MlxBuilder) -> None:
        for step in plan.steps:
            self._step(step, scope, builder)

    def _step(self, step: Step, scope: conversion.Scope[Value], builder: MlxBuilder) -> None:
        self._compute(step, self._context(step, scope, builder))

    def _context(self, step: Step, scope: conversion.Scope[Value], builder: MlxBuilder) -> Context:
        def write_graph(graph: GraphProto, outer: conversion.Scope[Value], inputs: Mapping[str, Value]) -> list[Value]:
            plan = self._plans.of(graph)
            inner = self._scope(plan, outer)
            for name, value in inputs.items():
                inner.put(name, value)
            self._run(plan, inner, builder)
            return [inner.value(value.name) for value in graph.output]

        return NamedContext(step.node, step.attributes, scope, write_graph, builder)

    def _compute(self, step: Step, context: Context) -> None:
        step.lowering(context)
        scope = context.scope
        for name, kind in step.kinds.items():
            value = scope.value(name)
            # Check the size now: MLX allocates memory later, and would end the process if there is not enough.
            if value.nbytes > self._most_bytes:
                raise TooLargeError(called(step.node), value.nbytes)
            if kind is not None and value.dtype != kind:
                scope.put(name, value.astype(kind))

    def _pack(self, graph: GraphProto) -> dict[str, Quantized]:
        """The second operands of products that MLX computes with packed weights."""
        makers = {name: node for node in graph.node for name in node.output}
        names = {node.input[1] for node in graph.node if node.op_type == "MatMul" and node.domain in STANDARD}
        tensors = {tensor.name: tensor for tensor in graph.initializer}
        found = {
            name: quantized(name, makers, tensors.get, self._read, self._float_type) for name in names if name in makers
        }
        packed = {name: each for name, each in found.items() if each is not None}
        # Evaluate the scales and offsets now. Otherwise a compiled function would compute them in each of its calls.
        mx.eval([(each.scales, each.offsets) for each in packed.values()])
        return with_matrices(packed)

    def _find_wavelengths(self, graph: GraphProto) -> dict[str, Value]:
        """Find the wavelengths of RotaryEmbedding's tables, from which MLX can compute the angles.

        There are none if the program computes in fp32: it then uses the tables, which are more precise.
        """
        tensors = {tensor.name: tensor for tensor in graph.initializer}
        pairs = {node.input[1]: node.input[2] for node in graph.node if node.op_type in ROTARY}
        if self._float_type == mx.float32:
            return {}
        found = {
            cosines: attention.wavelengths(*(self._read(tensors[name]) for name in (cosines, sines)))
            for cosines, sines in pairs.items()
            if cosines in tensors and sines in tensors
        }
        return {name: from_numpy(each) for name, each in found.items() if each is not None}

    def _compute_constants(self, plan: Plan) -> None:
        """Compute the nodes that depend on no input, and drop unused nodes and constants."""
        steps = needed(plan, self._quantized)
        given = {value.name for value in self._graph.input}
        known = {tensor.name for tensor in self._graph.initializer} - given
        builder, scope = self._builder(), self._scope(plan, None)
        left: list[Step] = []
        made: dict[str, Value] = {}
        bytes_left, values = folding_limit(self._graph.initializer), Values(self._graph)
        for step in steps:
            names = names_read_by(step.node) - {""}
            is_constant = names <= known and not any(True for _ in subgraphs_of(step.node))
            # Check sizes that are known from the graph first: some lowerings compute as soon as they are called.
            is_large = sum(result_bytes(name, values) for name in step.node.output) > bytes_left
            if not is_constant or is_large or step.node.op_type in random_numbers.OPS:
                left.append(step)
                continue
            self._step(step, scope, builder)
            # MLX computes these results only when they are evaluated: their sizes are known, but no memory is used yet.
            results = {name: scope.value(name) for name in step.node.output if name}
            if (size := sum(value.nbytes for value in results.values())) > bytes_left:
                left.append(step)
                continue
            bytes_left -= size
            made.update(results)
            known.update(results)
        plan.steps[:] = left
        # Keep the constants that the remaining nodes read. Weights that are packed for matrix products are kept
        # unpacked, too, if another kind of node reads them.
        read = {name for step in left for name in read_by(step, self._quantized)}
        read |= {each.name for each in plan.graph.output}
        plan.constants.update(made)
        for name in list(plan.constants):
            if name not in read:
                del plan.constants[name]
        for each in self._plans.all.values():
            self._read_files(each, read if each is plan else None)
            mx.eval(list(each.constants.values()))

    def _read_files(self, plan: Plan, names: Collection[str] | None) -> None:
        """Load the constants whose data are in files, which may change. `names` lists the needed ones; None for all."""
        for tensor in plan.graph.initializer:
            is_needed = names is None or (tensor.name in names and tensor.name not in self._quantized)
            if is_needed and tensor.data_location == TensorProto.EXTERNAL and tensor.name not in plan.constants:
                plan.constants[tensor.name] = self._make(tensor)
